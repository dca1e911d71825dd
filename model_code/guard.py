"""The guard of int8: which recipe is tried, which is kept, and why.

Rules, all on the same validation photos for int8 and float32:

- Speed first: where int8 hardly gains time, it is left out before its accuracy is looked at.
- A recipe passes if accuracy drops by at most `MAX_DROP`. The comparison is paired: photos that both answer alike
  say nothing, only those lost (float32 alone is right) and gained (int8 alone is right) count. The drop's standard
  error, sqrt(lost + gained) / photos, is a third of what two separate accuracies would have; it is stated, and not
  added to the limit: the user was promised half a point of what was measured.
- Among the recipes that pass, the one whose logits are nearest to the float graph's is kept. A thousand photos tell
  recipes apart by distance, while their accuracies differ by luck, and taking the luckiest would flatter int8.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.activations import Floats, observe
from model_code.dataset import ordered_map
from model_code.onnx_graph import session
from model_code.quantize import LAST_RESORTS, RECIPES, Batches, Recipe, quantise_corrected

Readout = Callable[[Mapping[str, Floats]], Floats]
"""A graph's outputs by name to logits [n, classes]."""

MAX_DROP = 0.005
"""Accuracy that int8 may cost on the validation split (issue 3: half a point)."""

MIN_SPEED_UP = 1.1
"""int8 that hardly gains time is not worth its error: transformers, where most of the work stays float."""

_TIMED_PHOTOS = 4


@dataclass(frozen=True)
class Attempt:
    """A recipe on the validation photos.

    Args:
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
        """Whether the drop is within the limit."""
        return self.drop <= MAX_DROP + 1e-9  # 1.0 - 0.995 is a little more than 0.005


@dataclass(frozen=True)
class Verdict:
    """What the guard decided and what it saw. Accuracies are of the reference model on the validation split.

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


@dataclass(frozen=True)
class Kept:
    """An int8 graph that passed: its file, its recipe, and its logits on the validation photos."""

    path: Path
    recipe: Recipe
    logits: Floats


@dataclass(frozen=True)
class Outcome:
    """The end of a search: the verdict, and the graph if it was kept."""

    verdict: Verdict
    kept: Kept | None = None


def search(
    model: Path,
    folder: Path,
    calibration: Batches,
    valid: Batches,
    labels: NDArray[np.int64],
    readout: Readout,
    workers: int,
    recipes: Sequence[Recipe] = RECIPES,
    last_resorts: Sequence[Recipe] = LAST_RESORTS,
) -> Outcome:
    """Find the best int8 form of `model` and judge it.

    Args:
        model: float graph.
        folder: scratch space; the graph found is written here.
        calibration: a pass over normalised training photos, in small batches: all activations of one are in
            memory at once.
        valid: a pass over the validation photos.
        labels: their classes, [photos].
        readout: the graph's outputs to the logits that are judged.
        workers: cores to use.
        recipes: tried all; the first decides whether int8 is fast enough.
        last_resorts: tried in order where none of those passes.

    Raises:
        ValueError: there is no photo to calibrate with.
    """
    activations = observe(model, calibration(), workers)

    def make(recipe: Recipe) -> Path:
        path = folder / recipe.file_name
        if not path.exists():
            ranges = activations.ranges(recipe.calibration)
            quantise_corrected(model, ranges, recipe, path, calibration, workers)
        return path

    timed = next(valid())[:_TIMED_PHOTOS]
    gain = speed_up(model, make(recipes[0]), timed)
    if gain < MIN_SPEED_UP:
        return Outcome(Verdict(False, "int8 is hardly faster than float32 here", None, len(labels)))
    reference = infer(model, valid(), readout, workers)
    attempts: list[Attempt] = []
    for recipe in (*recipes, *last_resorts):
        if recipe in last_resorts and any(attempt.passes for attempt in attempts):
            break
        logits = infer(make(recipe), valid(), readout, workers)
        attempts.append(compare(recipe, logits, reference, labels))
    verdict, chosen = judge(attempts, reference, labels)
    if chosen is None:
        return Outcome(verdict)
    if chosen.recipe in last_resorts and speed_up(model, make(chosen.recipe), timed) < MIN_SPEED_UP:
        reason = f"int8 that costs little ({chosen.recipe}) is hardly faster than float32 here"
        return Outcome(Verdict(False, reason, None, len(labels), drops=verdict.drops))
    return Outcome(verdict, Kept(make(chosen.recipe), chosen.recipe, chosen.logits))


def compare(recipe: Recipe, logits: Floats, reference: Floats, labels: NDArray[np.int64]) -> Attempt:
    """A recipe's logits beside the float graph's, [photos, classes] each, photo by photo."""
    right, right_float = logits.argmax(1) == labels, reference.argmax(1) == labels
    return Attempt(
        recipe=recipe,
        logits=logits,
        distance=distance(logits, reference),
        lost=int((right_float & ~right).sum()),
        gained=int((right & ~right_float).sum()),
    )


def judge(
    attempts: Sequence[Attempt], reference: Floats, labels: NDArray[np.int64]
) -> tuple[Verdict, Attempt | None]:
    """The nearest of the recipes that pass; the verdict tells of it, or of the one that failed by least."""
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
        method=str(shown.recipe),
        photos=len(labels),
        accuracy_float=accuracy,
        accuracy_int8=accuracy - shown.drop,
        drop_error=round(shown.drop_error, 6),
        agreement=float((shown.logits.argmax(1) == reference.argmax(1)).mean()),
        drops={str(attempt.recipe): round(attempt.drop, 6) for attempt in attempts},
        distances={str(attempt.recipe): round(attempt.distance, 4) for attempt in attempts},
    )
    return verdict, chosen


def speed_up(model: Path, quantised: Path, batch: Floats, rounds: int = 5) -> float:
    """How many times faster the int8 graph answers `batch`, in processor time of one core.

    Other programs on the machine take turns, so the best of several rounds counts. The figure decides and is not
    recorded: the same training must give the same bundle.
    """
    sessions = [session(path, threads=1) for path in (model, quantised)]
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


def infer(model: Path, batches: Iterable[Floats], readout: Readout, workers: int) -> Floats:
    """Logits [photos, classes] of `model` over `batches`, each batch on one core."""
    runtime = session(model, threads=1)
    names = [output.name for output in runtime.get_outputs()]

    def logits(batch: Floats) -> Floats:
        return readout(dict(zip(names, runtime.run(None, {"input": batch}), strict=True)))

    return np.concatenate(list(ordered_map(logits, batches, workers)))
