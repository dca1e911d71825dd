"""The guard of int8: which recipe is tried, which is kept, and why.

Rules, all on the same validation photos for int8 and float32:

- Speed first: where int8 hardly gains time, it is left out before its accuracy is looked at.
- A recipe passes if accuracy drops by at most `MAX_DROP`. The comparison is paired: only photos lost (float32 alone is
  right) and gained (int8 alone is right) count. The drop's standard error, sqrt(lost + gained) / photos, is a third of
  that of two separate accuracies; it is reported, and not added to the limit.
- Recipes are compared by distance to the float graph, not by accuracy: a few photos tell them apart by distance, while
  their accuracies differ by luck, and taking the luckiest would flatter int8.
- A recipe that fails as it is gets a second trial with its head corrected (see `correction`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.export.int8.activations import Floats
from model_code.export.int8.correction import Refit
from model_code.export.int8.quantize import Recipe
from model_code.process.onnx import open_onnx

MAX_DROP = 0.005
"""Accuracy that int8 may cost on the validation split: half a point."""

MIN_SPEED_UP = 1.1
"""int8 that hardly gains time is not worth its error: transformers, where most of the work stays float."""


@dataclass(frozen=True)
class Attempt:
    """A candidate on the validation photos.

    Args:
        recipe: Recipe of the quantized graph.
        refit: Correction of its embeddings before the head; None: no correction.
        logits: [photos, classes], of the reference model.
        distance: |logits - float logits| / |float logits|.
        lost: Photos that float32 alone gets right.
        gained: Photos that int8 alone gets right.
    """

    recipe: Recipe
    logits: Floats
    distance: float
    lost: int
    gained: int
    refit: Refit | None = None

    def __str__(self) -> str:
        return f"{self.recipe}, head refitted" if self.refit else str(self.recipe)

    @property
    def drop(self) -> float:
        """Accuracy that int8 costs; negative where it gains."""
        return (self.lost - self.gained) / len(self.logits)

    @property
    def drop_error(self) -> float:
        """Standard error of `drop`, of paired photos (McNemar 1947)."""
        photos = len(self.logits)
        return float(np.sqrt(max(0.0, self.lost + self.gained - photos * self.drop**2))) / photos

    @property
    def passes(self) -> bool:
        """True if the drop is within the limit."""
        return self.drop <= MAX_DROP + 1e-9  # 1.0 - 0.995 is a little more than 0.005


@dataclass(frozen=True)
class Verdict:
    """The guard's decision and its evidence. Accuracies are of the reference model on the validation split.

    `drops` and `distances` map each recipe tried to the accuracy it costs and to its distance from float logits.
    """

    kept: bool
    reason: str
    method: str | None
    photos: int
    accuracy_float: float | None = None
    accuracy_int8: float | None = None
    drop_error: float | None = None
    agreement: float | None = None
    drops: Mapping[str, float] | None = None
    distances: Mapping[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """For `metrics.int8` of model.json."""
        return asdict(self)


def compare(
    recipe: Recipe, logits: Floats, reference: Floats, labels: NDArray[np.int64], refit: Refit | None = None
) -> Attempt:
    """Return a candidate's logits compared with the float graph's photo by photo, [photos, classes] each."""
    right, right_float = logits.argmax(1) == labels, reference.argmax(1) == labels
    return Attempt(
        recipe=recipe,
        logits=logits,
        distance=distance(logits, reference),
        lost=int((right_float & ~right).sum()),
        gained=int((right & ~right_float).sum()),
        refit=refit,
    )


def judge(
    attempts: Sequence[Attempt], reference: Floats, labels: NDArray[np.int64]
) -> tuple[Verdict, Attempt | None]:
    """Return the nearest of the candidates that pass; the verdict tells of it, or of the one that failed by least."""
    passed = [attempt for attempt in attempts if attempt.passes]
    chosen = min(passed, key=lambda attempt: attempt.distance) if passed else None
    shown = chosen or min(attempts, key=lambda attempt: attempt.drop)
    accuracy = float((reference.argmax(1) == labels).mean())
    verdict = Verdict(
        kept=chosen is not None,
        reason=(
            f"validation accuracy {accuracy:.4f} -> {accuracy - shown.drop:.4f}, "
            f"{'within' if chosen else 'beyond'} {100 * MAX_DROP:.1f} points "
            f"({shown.lost} photos lost, {shown.gained} gained of {len(labels)}: "
            f"{100 * shown.drop:.2f} ± {100 * shown.drop_error:.2f} points)"
        ),
        method=str(shown),
        photos=len(labels),
        accuracy_float=accuracy,
        accuracy_int8=accuracy - shown.drop,
        drop_error=round(shown.drop_error, 6),
        agreement=float((shown.logits.argmax(1) == reference.argmax(1)).mean()),
        drops={str(attempt): round(attempt.drop, 6) for attempt in attempts},
        distances={str(attempt): round(attempt.distance, 4) for attempt in attempts},
    )
    return verdict, chosen


def speed_up(model: Path, quantized: Path, batch: Floats, rounds: int = 5) -> float:
    """Speed-up of the int8 graph over the float graph on `batch`, in processor time of one core.

    Other programs on the machine take turns, so the best of several rounds counts. The figure is used for
    the decision but not recorded: the same training must give the same bundle.
    """
    sessions = [open_onnx(path) for path in (model, quantized)]
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for at, runtime in enumerate(sessions):
            started = time.thread_time()
            runtime.run(["logits"], {"input": batch})
            best[at] = min(best[at], time.thread_time() - started)
    return best[0] / best[1]


def distance(logits: Floats, reference: Floats) -> float:
    """|logits - reference| / |reference|, Frobenius norms."""
    return float(np.linalg.norm(logits - reference)) / max(float(np.linalg.norm(reference)), 1e-12)
