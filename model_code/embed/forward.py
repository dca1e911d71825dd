"""The forward pass of a backbone on the fastest runtime at hand: OpenVINO on a CPU, torch on a GPU."""

from __future__ import annotations

import io
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_code.data.photos import Pixels
from model_code.data.transform import Transform
from model_code.networks.backbone import Backbone
from model_code.process.cores import cores
from model_code.process.onnx import open_onnx

Features = NDArray[np.float32]

# One photo's activations stay in a core's cache; with all cores at work, measured best for mobilenet_v2 among 1 to 32.
_ONE_PHOTO = 1
# torch pays for every operator it dispatches, so a few photos at a time.
_TORCH_BATCH = 8
_GPU_BATCH = 128


class Forward(Protocol):
    """uint8 photos [n, h, w, 3] to embeddings float32 [n, dim]; safe to call from many threads.

    One call keeps one core busy: call it from `callers` threads at once. `name` says what runs it, `batch_size` is
    the preferred batch size.
    """

    name: str
    batch_size: int
    callers: int

    def __call__(self, pixels: Pixels) -> Features:
        """Embed a batch."""


class Normalized(nn.Module):
    """A backbone that takes decoded photos, uint8 [n, h, w, 3], and normalizes them as `Transform.normalize` does.

    Runtimes do this faster than NumPy, and a GPU gets a quarter of the bytes.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: Backbone, transform: Transform) -> None:
        super().__init__()
        self.backbone = backbone
        scale, shift = map(torch.from_numpy, transform.scale_shift)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeddings [n, dim]."""
        photos = pixels.permute(0, 3, 1, 2).to(self.scale.dtype)
        features: Tensor = self.backbone(photos * self.scale + self.shift)
        return features


class OpenVinoForward:
    """OpenVINO in float32, one core per call.

    It computes in threads of its own; meanwhile the callers, of which there are more than cores, decode.
    """

    batch_size = _ONE_PHOTO

    def __init__(self, backbone: Backbone, transform: Transform) -> None:
        openvino = _openvino()
        self.name = f"openvino {openvino.__version__.split('-')[0]} float32"
        self.callers = 2 * cores()
        side = transform.crop
        core = openvino.Core()
        model = core.read_model(_as_onnx(backbone, transform))
        model.reshape([1, side, side, 3])  # a known shape is planned once
        self._compiled = core.compile_model(
            model,
            "CPU",
            {
                "NUM_STREAMS": cores(),
                "INFERENCE_NUM_THREADS": cores(),
                "INFERENCE_PRECISION_HINT": "f32",
                # Two jobs on one machine would pin themselves to the same cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._local = threading.local()
        # OpenVINO 2026.4 binds NumPy on its first call: two threads that make it at once may deadlock (one has
        # the GIL, the other the guard of the binding).
        self(np.zeros((1, side, side, 3), np.uint8))

    def __call__(self, pixels: Pixels) -> Features:
        """See `Forward`."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        request, output = self._local.request, self._compiled.output(0)
        return np.concatenate(
            [
                request.infer({0: pixels[row : row + 1]}, share_inputs=True)[output]
                for row in range(len(pixels))
            ]
        )


def _openvino() -> Any:
    # Importing openvino reports to its makers where openvino_telemetry is installed. It works the same without.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class OnnxForward:
    """ONNX Runtime in float32, one core per call: one call per core needs no barrier between cores."""

    batch_size = _ONE_PHOTO

    def __init__(self, backbone: Backbone, transform: Transform) -> None:
        import onnxruntime

        self.name = f"onnxruntime {onnxruntime.__version__} float32"
        self.callers = cores()
        self._session = open_onnx(_as_onnx(backbone, transform))

    def __call__(self, pixels: Pixels) -> Features:
        """See `Forward`."""
        features: Features = self._session.run(None, {"input": pixels})[0]
        return features


class TorchForward:
    """torch in float32, one core per call, where the other runtimes are missing."""

    batch_size = _TORCH_BATCH

    def __init__(self, backbone: Backbone, transform: Transform) -> None:
        self.name = f"torch {torch.__version__} float32"
        self.callers = cores()
        torch.set_num_threads(1)
        module = Normalized(backbone, transform).eval()
        self._module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, pixels: Pixels) -> Features:
        """See `Forward`."""
        with torch.inference_mode():
            features: Features = self._module(torch.from_numpy(pixels)).numpy()
            return features


class GpuForward:
    """torch on a GPU, in float16 and channels last. One thread talks to the GPU; the callers only wait for it.

    cuDNN's plans belong to the thread that made them. With one GPU client per caller, each made them anew for every
    shard, and an H100 embedded 45 photos/s.
    """

    batch_size = _GPU_BATCH

    def __init__(self, backbone: Backbone, transform: Transform) -> None:
        # New threads start on GPU 0: keep the one that this process was given.
        self._device = torch.device("cuda", torch.cuda.current_device())
        self.name = f"torch {torch.__version__} float16 on {torch.cuda.get_device_name(self._device)}"
        self.callers = cores()
        module = Normalized(backbone, transform).eval().to(self._device)
        self._module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._thread = ThreadPoolExecutor(1, "gpu", torch.cuda.set_device, (self._device,))

    def __call__(self, pixels: Pixels) -> Features:
        """See `Forward`."""
        with torch.cuda.device(self._device):
            batch = torch.from_numpy(pixels).pin_memory()
            answer, done = self._thread.submit(self._launch, batch).result()
            done.synchronize()
        features: Features = answer.numpy()
        return features

    @torch.inference_mode()
    def _launch(self, batch: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """Queue a batch's work without waiting for it, so that the GPU has no pause between batches."""
        with torch.autocast("cuda", torch.float16):
            features = self._module(batch.to(self._device, non_blocking=True))
        answer = features.float().to("cpu", non_blocking=True)
        # Without `blocking`, waiting for it would keep a core busy.
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record()
        return answer, done


_ON_CPU: Mapping[str, Callable[[Backbone, Transform], Forward]] = {
    "openvino": OpenVinoForward,
    "onnx": OnnxForward,
    "torch": TorchForward,
}
# Fastest first. With mobilenet_v2, OpenVINO is a tenth faster than ONNX Runtime, which is four times faster than torch.

RUNTIMES = ("auto", *_ON_CPU)


def best_forward(backbone: Backbone, transform: Transform, runtime: str = "auto") -> Forward:
    """Choose the fastest forward pass of this machine.

    Args:
        backbone: The network.
        transform: Normalizes its input.
        runtime: One of `RUNTIMES`; "auto": a GPU if there is one, else the first that is installed.

    Raises:
        ImportError: The named runtime is not installed.
        ValueError: `runtime` is none of `RUNTIMES`.
    """
    if runtime == "auto" and torch.cuda.is_available():
        return GpuForward(backbone, transform)
    for name, forward in _ON_CPU.items():
        if runtime in ("auto", name):
            try:
                return forward(backbone, transform)
            except ImportError:
                if runtime == name:
                    raise
    raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, not {runtime!r}")


def _as_onnx(backbone: Backbone, transform: Transform) -> bytes:
    example = torch.zeros(2, transform.crop, transform.crop, 3, dtype=torch.uint8)
    return to_onnx(Normalized(backbone, transform), example)


def to_onnx(module: nn.Module, example: Tensor) -> bytes:
    """Export a module of one input as an ONNX model: `input` [n, ...] to `embeddings` [n, dim] for any n.

    Args:
        module: The network.
        example: An input of the right shape and type.
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
