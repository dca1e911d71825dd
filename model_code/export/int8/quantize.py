"""Static int8 quantization (QDQ, per channel) of a graph by a recipe: how ranges are cut, which layers stay float."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_code.export.int8.activations import Calibration, Ranges

# Elementwise and pooling operators are included, so that a block stays in int8 from end to end. Softmax,
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
        """File name of the graph in the scratch folder of `search`."""
        return f"{self.calibration}-{self.float_first}-{self.float_last}.onnx"


RECIPES = (
    Recipe(Calibration.MIN_MAX),
    Recipe(Calibration.PERCENTILE, float_first=3),
    Recipe(Calibration.MEAN_SQUARED_ERROR, float_first=3),
    Recipe(Calibration.MEAN_SQUARED_ERROR, float_first=3, float_last=3),
)
"""About equally fast (within 6 % for mobilenet_v2). The first leaves least in float and decides whether int8 pays."""

LAST_RESORTS = (
    Recipe(Calibration.MEAN_SQUARED_ERROR, float_first=6, float_last=6),
    Recipe(Calibration.MEAN_SQUARED_ERROR, float_first=12, float_last=12),
)
"""A quarter slower and more; tried in order when the nearest of the others fail the guard."""


def quantize(model: Path, ranges: Ranges, recipe: Recipe, output: Path) -> None:
    """Write the int8 graph of `model` by `recipe`; `ranges` are those of its calibration."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorData, TensorsData, save_tensors_data

    excluded = excluded_nodes(onnx.load(str(model)).graph, recipe)
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
        )


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
