"""The forward pass of a backbone on the fastest runtime at hand: ONNX Runtime on a CPU, torch on a GPU."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model_code.architectures import Backbone
from model_code.photos import Pixels
from model_code.transform import Transform

Features = NDArray[np.float32]

# Small enough to stay in a core's cache; measured best for mobilenet_v2 among 1 to 32.
_CPU_BATCH = 8
_GPU_BATCH = 128


class Forward(Protocol):
    """uint8 photos [n, h, w, 3] to embeddings float32 [n, dim]; safe to call from many threads.

    One call keeps one core busy: call it from as many threads as there are. `name` says what runs it,
    `batch_size` how many photos it likes at a time.
    """

    name: str
    batch_size: int

    def __call__(self, pixels: Pixels) -> Features:
        """Embed a batch."""


def cores() -> int:
    """The cores this job may use: SM_NUM_CPUS, else OMP_NUM_THREADS, else what the process is bound to."""
    for variable in ("SM_NUM_CPUS", "OMP_NUM_THREADS"):
        value = os.environ.get(variable, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def best_forward(backbone: Backbone, transform: Transform, runtime: str = "auto") -> Forward:
    """The fastest forward pass this machine has.

    :param runtime: "onnx", "torch", or "auto": a GPU if there is one, else ONNX Runtime if it is installed,
        else torch.
    :raises ImportError: for "onnx" where ONNX Runtime is missing.
    """
    if runtime == "auto" and torch.cuda.is_available():
        return CudaForward(backbone, transform)
    if runtime in ("auto", "onnx"):
        try:
            return OnnxForward(backbone, transform)
        except ImportError:
            if runtime == "onnx":
                raise
    return TorchForward(backbone, transform)


class OnnxForward:
    """ONNX Runtime in float32, one core per call: one call per core needs no barrier between cores."""

    batch_size = _CPU_BATCH

    def __init__(self, backbone: Backbone, transform: Transform) -> None:
        import onnxruntime

        self.name = f"onnxruntime {onnxruntime.__version__} float32"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._transform = transform
        self._session = onnxruntime.InferenceSession(
            to_onnx(backbone, transform.crop), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, pixels: Pixels) -> Features:
        """See `Forward`."""
        features: Features = self._session.run(None, {"input": self._transform.normalise(pixels)})[0]
        return features


class TorchForward:
    """torch on one core per call, where ONNX Runtime is missing."""

    batch_size = _CPU_BATCH

    def __init__(self, backbone: Backbone, transform: Transform) -> None:
        self.name = f"torch {torch.__version__} float32"
        torch.set_num_threads(1)
        self._transform = transform
        self._backbone = _channels_last(backbone)

    def __call__(self, pixels: Pixels) -> Features:
        """See `Forward`."""
        with torch.inference_mode():
            batch = torch.from_numpy(self._transform.normalise(pixels)).contiguous(
                memory_format=torch.channels_last
            )
            features: Features = self._backbone(batch).numpy()
            return features


class CudaForward:
    """torch on a GPU: photos travel as bytes, are normalised there, and run in float16, channels last."""

    batch_size = _GPU_BATCH

    def __init__(self, backbone: Backbone, transform: Transform) -> None:
        self.name = f"torch {torch.__version__} float16 on {torch.cuda.get_device_name()}"
        torch.backends.cudnn.benchmark = True
        self._backbone = _channels_last(backbone.cuda())
        mean, std = (torch.tensor(v, device="cuda").view(3, 1, 1) for v in (transform.mean, transform.std))
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def __call__(self, pixels: Pixels) -> Features:
        """See `Forward`."""
        with torch.inference_mode(), torch.autocast("cuda", torch.float16):
            batch = torch.from_numpy(pixels).pin_memory().cuda(non_blocking=True).permute(0, 3, 1, 2)
            features: Features = self._backbone(batch * self._scale + self._shift).float().cpu().numpy()
            return features


def _channels_last(backbone: Backbone) -> nn.Module:
    module: nn.Module = backbone.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def to_onnx(backbone: Backbone, side: int) -> bytes:
    """The backbone as an ONNX model: `input` float32 [n, 3, side, side] to `embeddings` [n, dim], any n."""
    buffer = io.BytesIO()
    with _quiet():
        # The TorchScript exporter takes a fifth of the time of torch.export, and the file lives for one job
        # only.
        torch.onnx.export(
            backbone.eval(),
            (torch.zeros(2, 3, side, side),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["input"],
            output_names=["embeddings"],
            dynamic_axes={"input": {0: "n"}, "embeddings": {0: "n"}},
        )
    return buffer.getvalue()


@contextmanager
def _quiet() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
