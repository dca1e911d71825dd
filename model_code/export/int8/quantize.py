"""Static int8 quantization (QDQ, per channel) of a graph by a recipe: which layers stay float."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_code.export.int8.activations import Floats, Ranges

# Elementwise and pooling operators are included, so that a block stays in int8 from end to end. Softmax,
# norms and gates stay float: they cost int8 its accuracy, and take little of the time.
OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "MaxPool", "Concat")
_WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Recipe:
    """The number of weighted layers at either end of the backbone that stay float.

    The first layers work on few channels at full resolution: a small part of the arithmetic, the largest
    part of the error.
    """

    float_first: int = 0
    float_last: int = 0

    def __str__(self) -> str:
        ends = [f"first {self.float_first}"] * bool(self.float_first) + [f"last {self.float_last}"] * bool(
            self.float_last
        )
        return f"{' and '.join(ends)} layers float" if ends else "all layers int8"

    @property
    def file_name(self) -> str:
        """File name of the graph in the scratch folder of `search`."""
        return f"int8-{self.float_first}-{self.float_last}.onnx"


RECIPES = (
    Recipe(),
    Recipe(float_first=3),
    Recipe(float_first=3, float_last=3),
)
"""About equally fast (within 6 % for mobilenet_v2). The first leaves least in float and decides whether int8 pays."""

LAST_RESORTS = (
    Recipe(float_first=6, float_last=6),
    Recipe(float_first=12, float_last=12),
)
"""A quarter slower and more; tried in order when the nearest of the others fail the guard."""


def quantize(model: Path, ranges: Ranges, recipe: Recipe, output: Path) -> None:
    """Write the int8 graph of `model` by `recipe`, its activations in `ranges`."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorData, TensorsData, save_tensors_data

    graph = onnx.load(str(model)).graph
    excluded = excluded_nodes(graph, recipe)
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    with tempfile.TemporaryDirectory(prefix="quantize-") as folder, _quiet():
        # The documented way to pass precomputed ranges.
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
            extra_options={"TensorQuantOverrides": weight_ranges(graph)},
        )


def weight_ranges(graph: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the ranges of each layer's weights per output channel, as TensorQuantOverrides.

    x86 processors without VNNI multiply bytes in pairs of neighboring inputs and saturate the sum at 16 bits. A range
    in which no pair can reach that costs a little resolution; without it, mobilenet_v2's features are three times
    further off on such a processor (0.30 against 0.10 of their norm), and a bundle answers otherwise elsewhere.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranges = {}
    for node in graph.node:
        attributes = {entry.name: entry.i for entry in node.attribute}
        if node.op_type not in _WEIGHTED or node.input[1] not in constants or attributes.get("group", 1) != 1:
            continue  # grouped convolutions are computed in 16 bits
        weight = onnx.numpy_helper.to_array(constants[node.input[1]])
        if weight.ndim < 2 or (node.op_type == "MatMul" and weight.ndim > 2):
            continue
        axis = 0 if node.op_type == "Conv" or attributes.get("transB") else 1
        # Rows [out, in]; of a convolution, a pixel's inputs are next to each other.
        rows = np.moveaxis(weight, (axis, 1 - axis), (0, -1)).reshape(weight.shape[axis], -1)
        ends = np.maximum(_highest(rows), 1e-8)
        ranges[node.input[1]] = [{"rmin": -end, "rmax": end} for end in ends]
        ranges[node.input[1]][0]["axis"] = axis
    return ranges


def _highest(rows: Floats) -> Floats:
    """Return the range of rows [out, in] in which rounded pairs of one sign stay within 128: 255 * 128 < 2**15."""
    pairs = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(len(rows), -1, 2)
    return np.maximum(np.maximum(pairs, 0).sum(2), np.maximum(-pairs, 0).sum(2)).max(1)


def excluded_nodes(graph: Any, recipe: Recipe) -> list[str]:
    """Nodes that stay float: the head (a thousandth of the work, all of the answer) and the recipe's ends."""
    head = _head_nodes(graph)
    weighted = [node.name for node in graph.node if node.op_type in _WEIGHTED and node.name not in head]
    ends = weighted[: recipe.float_first] + weighted[len(weighted) - recipe.float_last :]
    return sorted({*head, *ends})


def _head_nodes(graph: Any) -> set[str]:
    """Nodes after the feature map; without one, the last weighted node."""
    outputs = {output.name for output in graph.output}
    if "features" not in outputs:
        return {[node.name for node in graph.node if node.op_type in _WEIGHTED][-1]}
    reached, head = {"features"}, set()
    for node in graph.node:  # ONNX graphs are sorted topologically
        if reached.intersection(node.input):
            reached.update(node.output)
            head.add(node.name)
    return head


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantizer, which recommends steps that make no difference here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
