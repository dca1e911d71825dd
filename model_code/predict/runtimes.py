"""Open a bundle's network in one of its runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model_code.bundle.card import RUNTIME_FILES
from model_code.predict.sessions import Floats, Runtime, Session, SessionError
from model_code.process.errors import first_line
from model_code.process.onnx import open_onnx

if TYPE_CHECKING:
    from model_code.bundle.card import ModelCard


def open_session(directory: Path, runtime: Runtime, card: ModelCard, threads: int) -> Session:
    """Load the bundle's network for `runtime`.

    Raises:
        SessionError: the file is missing, the library is missing, or the network cannot be loaded.
    """
    path = directory / RUNTIME_FILES[runtime]
    if not path.is_file():
        raise SessionError(f"{path.name} is not in the bundle")
    if runtime is Runtime.TORCH:
        try:
            from model_code.predict.torch_session import TorchSession
        except ImportError as missing:
            raise SessionError(f"{missing.name or 'torch'} is not installed") from missing
        return TorchSession(path, card, threads)
    return OnnxSession(path, threads)


class OnnxSession:
    """ONNX Runtime on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        try:
            self._session = open_onnx(path, threads)
        except ImportError as missing:
            raise SessionError("onnxruntime is not installed") from missing
        except Exception as broken:  # onnxruntime raises a different class for each way a file can be wrong
            raise SessionError(f"{path.name} cannot be loaded: {first_line(broken)}") from broken
        self._input = self._session.get_inputs()[0].name
        outputs = [output.name for output in self._session.get_outputs()]
        if "logits" not in outputs:
            raise SessionError(f"{path.name} has no output named logits, only {', '.join(outputs)}")
        self._has_features = "features" in outputs

    @property
    def has_features(self) -> bool:
        """See `Session`."""
        return self._has_features

    def logits(self, batch: Floats) -> Floats:
        """See `Session`."""
        return self._session.run(["logits"], {self._input: batch})[0]

    def features(self, batch: Floats) -> tuple[Floats, Floats]:
        """See `Session`."""
        if not self._has_features:
            raise SessionError("the network was exported without its feature map")
        logits, features = self._session.run(["logits", "features"], {self._input: batch})
        return logits, features
