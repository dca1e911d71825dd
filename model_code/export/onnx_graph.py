"""The classifier as an ONNX graph: `input` [n, 3, h, w] to `logits` [n, classes], perhaps `features`."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_code.networks.backbone import Classifier

MAX_BATCH = 4096
"""Upper bound of the dynamic batch, which torch.export requires."""

Floats = NDArray[np.float32]


class _WithFeatures(nn.Module):
    """Logits, and the feature map they are a linear function of, for class-activation maps."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        features = self.classifier.backbone.feature_map(photos)
        return self.classifier.head(features.mean((2, 3))), features


def has_features(model: nn.Module) -> bool:
    """Return True if the graph of `model` gets a second output, because its embedding is the mean of a feature map."""
    return isinstance(model, Classifier) and model.backbone.has_feature_map


def export_onnx(model: nn.Module, side: int, path: Path) -> None:
    """Write `model` (normalized [n, 3, side, side] to logits) to `path` with a dynamic batch.

    Raises:
        ImportError: onnx or onnxscript is missing.
        Exception: torch.export cannot trace the network.
    """
    import onnx
    import onnxscript  # noqa: F401 - torch reports only late, and at length, that it is missing

    outputs = ["logits"]
    if has_features(model):
        assert isinstance(model, Classifier)
        model, outputs = _WithFeatures(model), ["logits", "features"]
    batch = torch.export.Dim("n", min=1, max=MAX_BATCH)
    with _quiet():
        program = torch.onnx.export(
            model.eval(),
            (torch.zeros(2, 3, side, side),),
            dynamo=True,
            input_names=["input"],
            output_names=outputs,
            dynamic_shapes=({0: batch},),
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    graph = program.model_proto
    _forget_sources(graph)
    onnx.save(graph, str(path))


def _forget_sources(graph: Any) -> None:
    """Drop the exporter's stack traces, which contain paths of this machine."""
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer]:
        del value.metadata_props[:]
        value.doc_string = ""
    del graph.graph.metadata_props[:]
    del graph.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: it reports its stages on standard output, which carries the job's metrics."""
    silenced = logging.getLogger("torch.onnx")
    level = silenced.level
    silenced.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        silenced.setLevel(level)
