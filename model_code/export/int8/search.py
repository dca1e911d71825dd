"""The search for an int8 form: few photos choose the recipe, all of the validation split judge it.

Every pass runs the float graph and the candidates on the same decoded batch, so that a photo is decoded once and the
float graph computed once for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_code.export.int8 import guard
from model_code.export.int8.activations import Floats, Ranges, observe
from model_code.export.int8.correction import Refit, fit
from model_code.export.int8.guard import Attempt, Verdict, compare, distance, judge
from model_code.export.int8.quantize import LAST_RESORTS, OPERATORS, RECIPES, Recipe, quantize
from model_code.process.onnx import open_onnx
from model_code.process.parallel import ordered_map
from model_code.process.progress import Progress

Batches = Callable[[], Iterator[Floats]]
"""A pass over photos, normalized, float32 [n, 3, h, w] a batch."""
Readout = Callable[[Floats], Floats]
"""Embeddings [n, dim] to logits [n, classes] of the model that is judged."""

# Distances of recipes differ by a tenth and more, and repeat within 2 % from 64 photos to 64 others (mobilenet_v2).
_SCREENED_PHOTOS = 64
PHOTOS_PER_BATCH = 16
"""Photos of a batch: of `training` and `valid`."""
_TIMED_PHOTOS = 4


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


@dataclass(frozen=True)
class Photos:
    """The photos of a search.

    Args:
        calibration: A pass over normalized training photos, in small batches: all activations of one are in memory
            at once.
        training: A pass over more of them, to correct the head with.
        valid: A pass over the validation photos.
        labels: Their classes, [photos].
    """

    calibration: Batches
    training: Batches
    valid: Batches
    labels: NDArray[np.int64]


def search(
    model: Path,
    folder: Path,
    photos: Photos,
    readout: Readout | None,
    workers: int,
    recipes: Sequence[Recipe] = RECIPES,
    last_resorts: Sequence[Recipe] = LAST_RESORTS,
) -> Outcome:
    """Find the best int8 form of `model` and judge it.

    Args:
        model: float graph.
        folder: scratch space; the graph found is written here.
        photos: see `Photos`.
        readout: the head that is judged, on the embeddings; None: `model`'s own logits, and no correction.
        workers: cores to use.
        recipes: the nearest to the float graph is judged; the first decides whether int8 is fast enough.
        last_resorts: tried in order if it fails.

    Raises:
        ValueError: There are no photos to calibrate with.
    """
    bench = _Bench(model, folder, photos, readout, workers)
    if not bench.pays(recipes[0]):
        reason = "int8 is not sufficiently faster than float32 on this machine"
        return Outcome(Verdict(False, reason, None, len(photos.labels)))
    attempts = bench.attempts(bench.nearest(recipes))
    for recipe in last_resorts:
        if not any(attempt.passes for attempt in attempts):
            attempts += bench.attempts(recipe)
    verdict, chosen = judge(attempts, bench.reference, photos.labels)
    if chosen is None:
        return Outcome(verdict)
    if chosen.recipe in last_resorts and not bench.pays(chosen.recipe):
        reason = f"int8 that costs little ({chosen}) is not sufficiently faster than float32 on this machine"
        return Outcome(replace(verdict, kept=False, reason=reason))
    return Outcome(verdict, Kept(bench.make(chosen.recipe), chosen.recipe, chosen.refit, chosen.logits))


class _Bench:
    """Makes candidates and tries them. See `search`."""

    def __init__(
        self, model: Path, folder: Path, photos: Photos, readout: Readout | None, workers: int
    ) -> None:
        self._model, self._folder, self._workers = model, folder, workers
        self._photos, self._readout = photos, readout
        self.reference = np.zeros((0, 0), np.float32)
        """The float graph's logits of the validation photos, after the first of `attempts`."""

    @cached_property
    def _ranges(self) -> Ranges:
        return observe(self._model, self._photos.calibration(), self._workers, OPERATORS).ranges()

    @cached_property
    def _glimpse(self) -> Ranges:
        # Ranges make no difference to a graph's time: one batch tells them well enough, and a transformer, which int8
        # hardly helps, is spared minutes.
        return observe(self._model, islice(self._photos.calibration(), 1), self._workers, OPERATORS).ranges()

    def make(self, recipe: Recipe) -> Path:
        """Return the graph of a recipe."""
        path = self._folder / recipe.file_name
        if not path.exists():
            quantize(self._model, self._ranges, recipe, path)
        return path

    def pays(self, recipe: Recipe) -> bool:
        """Return True if the graph of a recipe is sufficiently faster than the float graph."""
        path = self._folder / "timed.onnx"
        quantize(self._model, self._glimpse, recipe, path)
        timed = next(self._photos.valid())[:_TIMED_PHOTOS]
        return guard.speed_up(self._model, path, timed) >= guard.MIN_SPEED_UP

    def nearest(self, recipes: Sequence[Recipe]) -> Recipe:
        """Return the recipe that answers a few validation photos, labels unseen, most like the float graph."""
        few = islice(self._photos.valid(), _SCREENED_PHOTOS // PHOTOS_PER_BATCH)
        exact, *found = self._answers([self._model, *map(self.make, recipes)], few)
        distances = [distance(rounded, exact) for rounded in found]
        for recipe, far in zip(recipes, distances, strict=True):
            print(f"int8 recipe: {recipe}: {100 * far:.1f} % from float32", flush=True)
        return recipes[int(np.argmin(distances))]

    def attempts(self, recipe: Recipe) -> list[Attempt]:
        """Judge a recipe on the validation photos as it is and, if it fails, with the head corrected."""
        graphs = [self._model, self.make(recipe)]
        progress = Progress(len(self._photos.labels), "photos")
        known = len(self.reference) > 0
        *exact, rounded = self._answers(graphs[known:], self._photos.valid(), progress)
        if exact:
            self.reference = self._head(exact[0])
        attempts = [self._attempt(recipe, rounded, None)]
        if self._readout is not None and not attempts[0].passes:
            wanted, seen = self._answers(graphs, self._photos.training())
            refit = fit(seen, wanted)
            attempts.append(self._attempt(recipe, refit(rounded), refit))
        return attempts

    def _attempt(self, recipe: Recipe, answers: Floats, refit: Refit | None) -> Attempt:
        labels = self._photos.labels
        attempt = compare(recipe, self._head(answers), self.reference, labels, refit)
        print(
            f"int8 candidate: {attempt}: {-100 * attempt.drop:+.2f} points against float32 on {len(labels)} photos",
            flush=True,
        )
        return attempt

    def _answers(
        self, graphs: Sequence[Path], batches: Iterable[Floats], progress: Progress | None = None
    ) -> list[Floats]:
        """Return what `readout` takes, of each graph: embeddings, or logits if there is no readout."""
        output = "logits" if self._readout is None else "features"
        return infer(graphs, batches, self._workers, output, progress)

    def _head(self, found: Floats) -> Floats:
        return found if self._readout is None else self._readout(found)


def infer(
    graphs: Sequence[Path],
    batches: Iterable[Floats],
    workers: int,
    output: str = "logits",
    progress: Progress | None = None,
) -> list[Floats]:
    """Run several graphs over the same photos; a batch is computed on one core.

    Returns:
        For each graph its logits [photos, classes], or, where `output` is "features", its embeddings [photos, dim] (the
        mean of the map).
    """
    sessions = [open_onnx(graph) for graph in graphs]

    def answer(batch: Floats) -> list[Floats]:
        found = [session.run([output], {"input": batch})[0] for session in sessions]
        return [values.mean((2, 3)) for values in found] if output == "features" else found

    rows = []
    for answers in ordered_map(answer, batches, workers):
        rows.append(answers)
        if progress is not None:
            progress.advance(len(answers[0]))
    return [np.concatenate(column) for column in zip(*rows, strict=True)]
