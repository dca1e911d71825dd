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
from torch import Tensor, nn

from model_code.architectures import Backbone
from model_code.photos import Pixels
from model_code.transform import Transform

Features = NDArray[np.float32]

# One photo's activations stay in a core's cache; with all cores at work, measured best for mobilenet_v2 among 1 to 32.
_ONNX_BATCH = 1
# torch pays for every operator it dispatches, so a few photos at a time.
_TORCH_BATCH = 8
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
        return TorchForward(backbone, transform, "cuda")
    if runtime in ("auto", "onnx"):
        try:
            return OnnxForward(backbone, transform)
        except ImportError:
            if runtime == "onnx":
                raise
    return TorchForward(backbone, transform)


class Normalised(nn.Module):
    """A backbone that takes photos as they are decoded, uint8 [n, h, w, 3], and does what `Transform.normalise` does.

    Runtimes do this faster than NumPy, and a GPU gets a quarter of the bytes.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: Backbone, transform: Transform) -> None:
        super().__init__()
        self.backbone = backbone
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transform.mean, transform.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeddings [n, dim]."""
        photos = pixels.permute(0, 3, 1, 2).to(self.scale.dtype)
        features: Tensor = self.backbone(photos * self.scale + self.shift)
        return features


class OnnxForward:
    """ONNX Runtime in float32, one core per call: one call per core needs no barrier between cores."""

    batch_size = _ONNX_BATCH

    def __init__(self, backbone: Backbone, transform: Transform) -> None:
        import onnxruntime

        self.name = f"onnxruntime {onnxruntime.__version__} float32"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        example = torch.zeros(2, transform.crop, transform.crop, 3, dtype=torch.uint8)
        model = to_onnx(Normalised(backbone, transform), example)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, pixels: Pixels) -> Features:
        """See `Forward`."""
        features: Features = self._session.run(None, {"input": pixels})[0]
        return features


class TorchForward:
    """torch: on a CPU one core per call, where ONNX Runtime is missing; on a GPU in float16, channels last."""

    def __init__(self, backbone: Backbone, transform: Transform, device: str = "cpu") -> None:
        gpu = device == "cuda"
        where = f"float16 on {torch.cuda.get_device_name()}" if gpu else "float32"
        self.name = f"torch {torch.__version__} {where}"
        self.batch_size = _GPU_BATCH if gpu else _TORCH_BATCH
        self._device = device
        if gpu:
            torch.backends.cudnn.benchmark = True
        else:
            torch.set_num_threads(1)
        module: nn.Module = Normalised(backbone, transform).eval().to(device)
        self._module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, pixels: Pixels) -> Features:
        """See `Forward`."""
        batch = torch.from_numpy(pixels)
        if self._device == "cuda":
            batch = batch.pin_memory().to("cuda", non_blocking=True)
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=self._device == "cuda"):
            features: Features = self._module(batch).float().cpu().numpy()
            return features


def to_onnx(module: nn.Module, example: Tensor) -> bytes:
    """A module of one input as an ONNX model, `input` [n, ...] to `embeddings` [n, dim] for any n.

    :param example: an input of the right shape and type.
    """
    buffer = io.BytesIO()
    with _quiet():
        # The TorchScript exporter takes a fifth of the time of torch.export, and the file lives for one job only.
        torch.onnx.export(
            module.eval(),
            (example,),
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
