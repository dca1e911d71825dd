"""ONNX Runtime sessions, opened one way for embedding, export and serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_onnx(model: Path | bytes, threads: int = 1, *, optimize: bool = True) -> Any:
    """Open an ONNX Runtime session on the CPU.

    Args:
        model: The file, or its bytes.
        threads: Threads that share one run. With 1, a run stays on the calling thread.
        optimize: False keeps every tensor of the graph as it is, for looking inside.

    Raises:
        ImportError: onnxruntime is not installed.
        Exception: The graph cannot be loaded; onnxruntime raises a different class for each cause.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A spinning pool burns the cores that decoding and other workers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )
