"""Static int8 quantisation (QDQ, per channel) of a graph by a recipe: how ranges are cut, which layers stay float."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_code.activations import Calibration, Floats, Ranges
from model_code.dataset import ordered_map
from model_code.onnx_graph import session

Batches = Callable[[], Iterator[Floats]]
"""A pass over photos, normalised, float32 [n, 3, h, w] a batch."""

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
"""All about equally fast (within 6 % for mobilenet_v2). The first leaves least in float: it tells whether int8 pays."""

LAST_RESORTS = (
    Recipe(Calibration.MEAN_SQUARED_ERROR, float_first=6, float_last=6),
    Recipe(Calibration.MEAN_SQUARED_ERROR, float_first=12, float_last=12),
)
"""A quarter slower and more; tried in order when the nearest of the others fail the guard."""


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


def quantise_corrected(
    model: Path, ranges: Ranges, recipe: Recipe, output: Path, photos: Batches, workers: int
) -> None:
    """`quantise`, then shift the feature map so that its mean over `photos` is the float graph's.

    Rounding moves the means of activations, layer upon layer, and every photo's alike (Nagel et al. 2019,
    arXiv:1906.04721, "bias correction"); for mobilenet_v2 this takes away a twelfth of the distance to the float
    logits. A graph without `features` is left as it is.
    """
    quantise(model, ranges, recipe, output)
    wanted = mean_embedding(model, photos, workers)
    if wanted is not None:
        got = mean_embedding(output, photos, workers)
        assert got is not None
        _shift_features(output, wanted - got)


def mean_embedding(model: Path, photos: Batches, workers: int) -> Floats | None:
    """The mean of the feature map over `photos` and positions, [channels]; None where the graph does not give it."""
    runtime = session(model, threads=1)
    if "features" not in [output.name for output in runtime.get_outputs()]:
        return None

    def sums(batch: Floats) -> tuple[int, Floats]:
        (features,) = runtime.run(["features"], {"input": batch})
        return len(batch), features.mean((2, 3)).sum(0)

    counts, totals = zip(*ordered_map(sums, photos(), workers), strict=True)
    mean: Floats = np.sum(totals, axis=0) / np.float32(sum(counts))
    return mean


def _shift_features(path: Path, shift: Floats) -> None:
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    place, producer = next((at, node) for at, node in enumerate(graph.node) if "features" in node.output)
    producer.output[list(producer.output).index("features")] = "features_rounded"
    constant = onnx.numpy_helper.from_array(shift.reshape(1, -1, 1, 1).astype(np.float32), "features_shift")
    graph.initializer.append(constant)
    graph.node.insert(
        place + 1, onnx.helper.make_node("Add", ["features_rounded", "features_shift"], ["features"], "shift")
    )
    onnx.save(model, str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises, by the root logger, steps that make no difference here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
