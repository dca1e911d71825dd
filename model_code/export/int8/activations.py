"""Statistics of a network's activations over training photos, and the ranges that int8 should resolve."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.process.onnx import open_onnx

Floats = NDArray[np.float32]
Ranges = dict[str, tuple[float, float]]
"""Smallest and largest value of each activation that int8 resolves, by tensor name."""

_SAMPLES_PER_PHOTO = 2048
_GROUP = 8 * _SAMPLES_PER_PHOTO
_CUTS = np.linspace(0.3, 1.0, 15)


@dataclass(frozen=True)
class Activations:
    """Statistics of every activation by tensor name: its extremes, and a sample of its values."""

    lowest: Mapping[str, float]
    highest: Mapping[str, float]
    sample: Mapping[str, Floats]

    def ranges(self) -> Ranges:
        """Return the range to quantize each activation in: of least rounding error, the median over eight photos each.

        A narrower range resolves finer and saturates more. Extremes (0.13 against 0.10 of the norm of mobilenet_v2's
        features) and percentiles (0.11) were further off.
        """
        return {name: self._range(name) for name in self.sample}

    def _range(self, name: str) -> tuple[float, float]:
        sample = self.sample[name]
        groups = np.array_split(sample, max(1, len(sample) // _GROUP))
        best = [_least_error(group, self.lowest[name], self.highest[name]) for group in groups]
        # The mean would follow the few photos with the largest outliers (mobilenet_v2's logits: a third further off).
        return float(np.median([pair[0] for pair in best])), float(np.median([pair[1] for pair in best]))


def _least_error(values: Floats, low: float, high: float) -> tuple[float, float]:
    ends = [(low * float(cut), high * float(cut)) for cut in _CUTS]
    return min(ends, key=lambda pair: squared_error(values, *pair))


def squared_error(values: Floats, low: float, high: float) -> float:
    """Mean squared error of rounding `values` to the 256 levels of an asymmetric uint8 range."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    if scale == 0:
        return float(np.mean(values**2))
    zero = round(-low / scale)
    levels = np.clip(np.round(values / np.float32(scale)) + zero, 0, 255)
    return float(np.mean((np.float32(scale) * (levels - zero) - values) ** 2))


def observe(model: Path, batches: Iterable[Floats], threads: int, operators: Collection[str]) -> Activations:
    """Run `batches` through the graph with every activation that a node of `operators` reads or gives as an output.

    ONNX Runtime's own calibrators keep every activation of every photo in memory, or only the extremes; a
    random sample gives the same percentiles in flat memory.
    """
    import onnx

    graph = onnx.load(str(model))
    present = {output.name for output in graph.graph.output}
    for name in _activation_names(graph, operators):
        if name not in present:
            graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    # Unoptimized: fusing would take away the tensors in question.
    runtime = open_onnx(graph.SerializeToString(), threads, optimize=False)
    outputs = [output.name for output in runtime.get_outputs()]
    draw = np.random.default_rng(0)
    lowest: dict[str, float] = {}
    highest: dict[str, float] = {}
    sample: dict[str, list[Floats]] = {}
    for batch in batches:
        values = {"input": batch, **dict(zip(outputs, runtime.run(None, {"input": batch}), strict=True))}
        for name, value in values.items():
            flat = value.reshape(-1)
            lowest[name] = min(lowest.get(name, np.inf), float(flat.min()))
            highest[name] = max(highest.get(name, -np.inf), float(flat.max()))
            sample.setdefault(name, []).append(
                flat[draw.integers(0, flat.size, _SAMPLES_PER_PHOTO * len(batch))]
            )
    if not sample:
        raise ValueError("no photo to calibrate with")
    return Activations(lowest, highest, {name: np.concatenate(parts) for name, parts in sample.items()})


def _activation_names(model: Any, operators: Collection[str]) -> list[str]:
    """Float tensors, weights apart, that nodes of `operators` read or give."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    made = {name for node in model.graph.node for name in node.output}
    chosen = [node for node in model.graph.node if node.op_type in operators]
    names = dict.fromkeys(name for node in chosen for name in (*node.input, *node.output))
    return [name for name in names if name in made & floats]
