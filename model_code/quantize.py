"""Static int8 quantisation (QDQ, per channel) that is kept only if it costs next to nothing in accuracy.

One pass over training photos gives the ranges of every activation; several recipes are made of them (how to
cut the ranges, which layers stay float) and tried on validation photos. Choosing looks at the distance of
the logits, which a few hundred photos measure well; accepting looks at accuracy, which is what the user
pays for.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.activations import Calibration, Floats, Ranges, observe
from model_code.dataset import ordered_map
from model_code.onnx_graph import session

Batches = Callable[[int, int], Iterator[Floats]]
"""A pass over the photos from one index up to another, normalised, float32 [n, 3, h, w] a batch."""
Readout = Callable[[Mapping[str, Floats]], Floats]
"""A graph's outputs by name to logits [n, classes]."""

MAX_DROP = 0.005
"""Accuracy that int8 may cost on the validation split (issue 3: half a point)."""

MIN_SPEED_UP = 1.1
"""int8 that hardly gains time is not worth its error: transformers, where most of the work stays float."""

# Elementwise and pooling operators ride along, so that a block stays in int8 from end to end. Softmax,
# norms and gates stay float: they cost int8 its accuracy, and take little of the time.
OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "MaxPool", "Concat")
_WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Recipe:
    """A calibration, and how many weighted layers at either end of the backbone stay float.

    The first layers work on few channels at full resolution: a small part of the arithmetic, the largest
    part of the error.
    """

    calibration: Calibration
    float_first: int = 0
    float_last: int = 0

    def __str__(self) -> str:
        ends = [f"first {self.float_first}"] * bool(self.float_first) + [f"last {self.float_last}"] * bool(
            self.float_last
        )
        return f"{self.calibration}, {' and '.join(ends)} layers float" if ends else str(self.calibration)

    @property
    def file_name(self) -> str:
        """Where `search` writes the graph."""
        return f"{self.calibration}-{self.float_first}-{self.float_last}.onnx"


RECIPES = (
    Recipe(Calibration.MIN_MAX),
    Recipe(Calibration.PERCENTILE, float_first=3),
    Recipe(Calibration.MEAN_SQUARED_ERROR, float_first=3),
    Recipe(Calibration.MEAN_SQUARED_ERROR, float_first=3, float_last=3),
)
"""All about equally fast (within 6 % for mobilenet_v2), so the nearest to float wins."""

LAST_RESORTS = (
    Recipe(Calibration.MEAN_SQUARED_ERROR, float_first=6, float_last=6),
    Recipe(Calibration.MEAN_SQUARED_ERROR, float_first=12, float_last=12),
)
"""A quarter slower and more; tried in order when the nearest of the others fail the guard."""


@dataclass(frozen=True)
class Verdict:
    """What the guard decided and what it saw. Accuracies are of the reference model on the validation split.

    `distances` maps each recipe tried to |int8 logits - float logits| / |float logits|.
    """

    kept: bool
    reason: str
    method: str | None
    photos: int
    accuracy_float: float | None = None
    accuracy_int8: float | None = None
    agreement: float | None = None
    distances: Mapping[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """For `metrics.int8` of model.json."""
        return asdict(self)


def quantise(model: Path, ranges: Ranges, recipe: Recipe, output: Path) -> None:
    """Write the int8 graph of `model` by `recipe`; `ranges` are those of its calibration."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorData, TensorsData, save_tensors_data

    excluded = excluded_nodes(onnx.load(str(model)).graph, recipe)
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    with tempfile.TemporaryDirectory(prefix="quantise-") as folder, _quiet():
        # The documented way to hand in ranges of one's own.
        cache = Path(folder) / "ranges.json"
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), cache)
        quantize_static(
            str(model),
            str(output),
            op_types_to_quantize=list(OPERATORS),
            nodes_to_exclude=excluded,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibration_cache_path=cache,
        )


def excluded_nodes(graph: Any, recipe: Recipe) -> list[str]:
    """Nodes that stay float: the head (a thousandth of the work, all of the answer) and the recipe's ends."""
    head = _head_nodes(graph)
    weighted = [node.name for node in graph.node if node.op_type in _WEIGHTED and node.name not in head]
    ends = weighted[: recipe.float_first] + weighted[len(weighted) - recipe.float_last :]
    return sorted({*head, *ends})


def _head_nodes(graph: Any) -> set[str]:
    """What comes after the feature map; without one, the last weighted node."""
    outputs = {output.name for output in graph.output}
    if "features" not in outputs:
        return {[node.name for node in graph.node if node.op_type in _WEIGHTED][-1]}
    reached, head = {"features"}, set()
    for node in graph.node:  # ONNX graphs are sorted topologically
        if reached.intersection(node.input):
            reached.update(node.output)
            head.add(node.name)
    return head


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
    calibration: Iterable[Floats],
    valid: Batches,
    labels: NDArray[np.int64],
    readout: Readout,
    workers: int,
    screen: int = 192,
    recipes: Sequence[Recipe] = RECIPES,
    last_resorts: Sequence[Recipe] = LAST_RESORTS,
) -> Outcome:
    """Find the best int8 form of `model` and judge it.

    Args:
        model: float graph.
        folder: scratch space; the graph found is written here.
        calibration: normalised training photos, in small batches: all activations of one are in memory at
            once.
        valid: passes over the validation photos.
        labels: their classes, [photos].
        readout: the graph's outputs to the logits that are judged.
        workers: cores to use.
        screen: photos on which recipes are compared.

    Raises:
        ValueError: there is no photo to calibrate with.
    """
    activations = observe(model, calibration, workers)
    float_logits = infer(model, valid(0, len(labels)), readout, workers)
    screen = min(screen, len(labels))
    ranges = {kind: activations.ranges(kind) for kind in {r.calibration for r in (*recipes, *last_resorts)}}
    distances: dict[str, float] = {}
    screened: dict[Recipe, Floats] = {}

    def attempt(recipe: Recipe) -> None:
        quantise(model, ranges[recipe.calibration], recipe, folder / recipe.file_name)
        logits = infer(folder / recipe.file_name, valid(0, screen), readout, workers)
        distances[str(recipe)] = distance(logits, float_logits[:screen])
        screened[recipe] = logits

    for recipe in recipes:
        attempt(recipe)
    nearest = sorted(recipes, key=lambda recipe: distances[str(recipe)])[:2]
    for recipe in (*nearest, *last_resorts):
        if recipe not in screened:
            attempt(recipe)
        path = folder / recipe.file_name
        rest = [infer(path, valid(screen, len(labels)), readout, workers)] if screen < len(labels) else []
        logits = np.concatenate([screened[recipe], *rest])
        verdict = judge(float_logits, logits, labels, recipe, distances)
        if not verdict.kept:
            continue
        if speed_up(model, path, next(valid(0, screen))) < MIN_SPEED_UP:
            return Outcome(replace(verdict, kept=False, reason="int8 is hardly faster than float32 here"))
        return Outcome(verdict, Kept(path, recipe, logits))
    return Outcome(verdict)


def judge(
    float_logits: Floats,
    logits: Floats,
    labels: NDArray[np.int64],
    recipe: Recipe,
    distances: Mapping[str, float],
) -> Verdict:
    """The guard: accuracy may drop by at most `MAX_DROP`."""
    before, after = float_logits.argmax(1), logits.argmax(1)
    accuracy_float, accuracy_int8 = float((before == labels).mean()), float((after == labels).mean())
    drop = accuracy_float - accuracy_int8
    kept = drop <= MAX_DROP + 1e-9  # 1.0 - 0.995 is a little more than 0.005
    change = f"{accuracy_float:.4f} -> {accuracy_int8:.4f}"
    return Verdict(
        kept=kept,
        reason=f"validation accuracy {change}, {'within' if kept else 'beyond'} {100 * MAX_DROP:.1f} points",
        method=str(recipe),
        photos=len(labels),
        accuracy_float=accuracy_float,
        accuracy_int8=accuracy_int8,
        agreement=float((before == after).mean()),
        distances={name: round(value, 4) for name, value in distances.items()},
    )


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


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises, by the root logger, steps that make no difference here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
