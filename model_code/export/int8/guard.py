"""The guard of int8: which recipe is tried, which is kept, and why.

Rules, all on the same validation photos for int8 and float32:

- Speed first: where int8 hardly gains time, it is left out before its accuracy is looked at.
- A recipe passes if accuracy drops by at most `MAX_DROP`. The comparison is paired: only photos lost (float32 alone is
  right) and gained (int8 alone is right) count. The drop's standard error, sqrt(lost + gained) / photos, is a third of
  that of two separate accuracies; it is reported, and not added to the limit.
- Among the candidates that pass, the one whose logits are nearest to the float graph's is kept. A thousand photos tell
  them apart by distance, while their accuracies differ by luck, and taking the luckiest would flatter int8.
- A candidate is a recipe as it is, or, for the two nearest, with its head corrected (see `correction`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.export.int8.activations import Activations, Calibration, Floats, observe
from model_code.export.int8.correction import Refit, fit
from model_code.export.int8.quantize import LAST_RESORTS, OPERATORS, RECIPES, Recipe, quantize
from model_code.process.onnx import open_onnx
from model_code.process.parallel import ordered_map
from model_code.process.progress import Progress

Batches = Callable[[], Iterator[Floats]]
"""A pass over photos, normalized, float32 [n, 3, h, w] a batch."""
Readout = Callable[[Floats], Floats]
"""Embeddings [n, dim] to logits [n, classes] of the model that is judged."""

MAX_DROP = 0.005
"""Accuracy that int8 may cost on the validation split: half a point."""

MIN_SPEED_UP = 1.1
"""int8 that hardly gains time is not worth its error: transformers, where most of the work stays float."""

_TIMED_PHOTOS = 4


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


@dataclass(frozen=True)
class Kept:
    """The accepted int8 graph (head not corrected yet), its recipe, and its logits of the validation photos."""

    path: Path
    recipe: Recipe
    refit: Refit | None
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
    training: Batches,
    valid: Batches,
    labels: NDArray[np.int64],
    readout: Readout | None,
    workers: int,
    recipes: Sequence[Recipe] = RECIPES,
    last_resorts: Sequence[Recipe] = LAST_RESORTS,
) -> Outcome:
    """Find the best int8 form of `model` and judge it.

    Args:
        model: float graph.
        folder: scratch space; the graph found is written here.
        calibration: a pass over normalized training photos, in small batches: all activations of one are in
            memory at once.
        training: a pass over more of them, to refit the head with.
        valid: a pass over the validation photos.
        labels: their classes, [photos].
        readout: the head that is judged, on the embeddings; None: `model`'s own logits, and no refitting.
        workers: cores to use.
        recipes: tried all; the first decides whether int8 is fast enough.
        last_resorts: tried in order where none of those passes.

    Raises:
        ValueError: There are no photos to calibrate with.
    """
    bench = _Bench(model, folder, calibration, valid, labels, readout, workers)
    if not bench.pays(recipes[0]):
        return Outcome(
            Verdict(False, "int8 is not sufficiently faster than float32 on this machine", None, len(labels))
        )
    # A pass over photos each: the float graph, the recipes, and what refitting the two nearest takes.
    progress = Progress(1 + len(recipes) + (0 if readout is None else 3), "passes", every=0)
    reference = bench.reference
    progress.advance()
    attempts = []
    for recipe in recipes:
        attempts.append(bench.attempt(recipe))
        progress.advance()
    if readout is not None:
        exact = bench.answers(model, training)
        progress.advance()
        for near in sorted(attempts, key=lambda attempt: attempt.distance)[:2]:
            refit = fit(bench.answers(bench.make(near.recipe), training), exact)
            attempts.append(bench.attempt(near.recipe, refit))
            progress.advance()
    for recipe in last_resorts:
        if not any(attempt.passes for attempt in attempts):
            attempts.append(bench.attempt(recipe))
    verdict, chosen = judge(attempts, reference, labels)
    if chosen is None:
        return Outcome(verdict)
    if chosen.recipe in last_resorts and not bench.pays(chosen.recipe):
        reason = f"int8 that costs little ({chosen}) is not sufficiently faster than float32 on this machine"
        return Outcome(replace(verdict, kept=False, reason=reason))
    return Outcome(verdict, Kept(bench.make(chosen.recipe), chosen.recipe, chosen.refit, chosen.logits))


class _Bench:
    """Makes candidates and tries them; what several candidates need is computed once. See `search`."""

    def __init__(
        self,
        model: Path,
        folder: Path,
        calibration: Batches,
        valid: Batches,
        labels: NDArray[np.int64],
        readout: Readout | None,
        workers: int,
    ) -> None:
        self._model, self._folder, self._workers = model, folder, workers
        self._valid, self._labels, self._readout = valid, labels, readout
        self._calibration = calibration
        self._found: dict[Recipe, Floats] = {}

    @cached_property
    def _activations(self) -> Activations:
        return observe(self._model, self._calibration(), self._workers, OPERATORS)

    @cached_property
    def _glimpse(self) -> Activations:
        # Ranges make no difference to a graph's time: one batch tells them well enough, and a transformer, which int8
        # hardly helps, is spared minutes.
        return observe(self._model, islice(self._calibration(), 1), self._workers, OPERATORS)

    @cached_property
    def reference(self) -> Floats:
        """The float graph's logits of the validation photos."""
        return self._head(self.answers(self._model, self._valid))

    def make(self, recipe: Recipe) -> Path:
        """Return the graph of a recipe."""
        path = self._folder / recipe.file_name
        if not path.exists():
            quantize(self._model, self._activations.ranges(recipe.calibration), recipe, path)
        return path

    def pays(self, recipe: Recipe) -> bool:
        """Return True if the graph of a recipe is sufficiently faster than the float graph."""
        path = self._folder / "timed.onnx"
        quantize(self._model, self._glimpse.ranges(Calibration.MIN_MAX), recipe, path)
        timed = next(self._valid())[:_TIMED_PHOTOS]
        return speed_up(self._model, path, timed) >= MIN_SPEED_UP

    def answers(self, path: Path, photos: Batches) -> Floats:
        """Return the input of `readout`: embeddings, or logits if there is no readout."""
        return infer(path, photos(), self._workers, "logits" if self._readout is None else "features")

    def attempt(self, recipe: Recipe, refit: Refit | None = None) -> Attempt:
        """Measure a candidate on the validation photos."""
        if recipe not in self._found:
            self._found[recipe] = self.answers(self.make(recipe), self._valid)
        found = self._found[recipe] if refit is None else refit(self._found[recipe])
        attempt = compare(recipe, self._head(found), self.reference, self._labels, refit)
        print(
            f"int8 candidate: {attempt}: {-100 * attempt.drop:+.2f} points against float32 "
            f"on {len(self._labels)} photos",
            flush=True,
        )
        return attempt

    def _head(self, found: Floats) -> Floats:
        return found if self._readout is None else self._readout(found)


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


def infer(model: Path, batches: Iterable[Floats], workers: int, output: str = "logits") -> Floats:
    """Logits [photos, classes], or embeddings [photos, dim] (the mean of the map) where `output` is "features".

    Each batch is computed on one core.
    """
    runtime = open_onnx(model)

    def answer(batch: Floats) -> Floats:
        (values,) = runtime.run([output], {"input": batch})
        return values.mean((2, 3)) if output == "features" else values

    return np.concatenate(list(ordered_map(answer, batches, workers)))
