"""The server of AWS's inference images: serves `code/inference.py` of a model as sagemaker-inference-toolkit does.

Run by an image's interpreter in the sandbox of an endpoint. The script defines model_fn(model_dir), and input_fn,
predict_fn and output_fn or transform_fn where the defaults do not fit: JSON, CSV and NumPy bodies, `model(data)` for
PyTorch and `model.predict(data)` for anything else. The defaults need numpy.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import io
import json
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Collection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

DEFAULT_TYPE = "application/json"
CSV = "text/csv"
NPY = "application/x-npy"
TORCHSCRIPT = "model.pt"
BOOSTER = "xgboost-model"
HUGGING_FACE = (
    "local_aws lacks the default handler of the Hugging Face image: put the model's files and a code/inference.py into "
    "model.tar.gz, whose model_fn(model_dir) returns transformers.pipeline(task, model=model_dir), and whose "
    "transform_fn(model, body, content_type, accept) calls it"
)


class UnsupportedType(Exception):
    """A content type that the default functions do not read or write; answered with 415."""


class Handlers:
    """The functions of a model's script, with the toolkit's defaults where it defines none."""

    def __init__(
        self, model_dir: Path, script: ModuleType | None, text: Collection[str] = (DEFAULT_TYPE, CSV)
    ) -> None:
        self._text = text
        self._script = script
        self.model = self._call("model_fn", load, str(model_dir))

    def answer(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """Return the answer to a request and its content type.

        As in AWS's images but XGBoost's, the script is given JSON and CSV as text.
        """
        content: Any = body.decode() if content_type in self._text else body
        transform = getattr(self._script, "transform_fn", None)
        if transform is not None:
            result = _with_context(transform, self.model, content, content_type, accept)
        else:
            data = self._call("input_fn", decode, content, content_type)
            prediction = self._call("predict_fn", predict, data, self.model)
            result = self._call("output_fn", encode, prediction, accept)
        answer, kind = result if isinstance(result, tuple) else (result, accept)
        return answer.encode() if isinstance(answer, str) else bytes(answer), str(kind)

    def _call(self, name: str, default: Callable[..., Any], *arguments: Any) -> Any:
        return _with_context(getattr(self._script, name, default), *arguments)


def _with_context(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that may also take the toolkit's context, which is None here."""
    takes = [p for p in inspect.signature(function).parameters.values() if p.kind <= p.POSITIONAL_OR_KEYWORD]
    return function(*arguments, *([None] if len(takes) == len(arguments) + 1 else []))


class Booster:
    """A model of the XGBoost image's built-in algorithm, which serves without a script."""

    def __init__(self, path: Path) -> None:
        self._xgboost: Any = importlib.import_module("xgboost")
        with path.open("rb") as file:
            if (
                file.read(1) == b"\x80"
            ):  # a pickle, as versions up to 1.2 wrote; it runs in the endpoint's sandbox
                file.seek(0)
                self._model = pickle.load(file)
            else:
                self._model = self._xgboost.Booster(model_file=str(path))

    def predict(self, data: Any) -> Any:
        """Predict each row."""
        return self._model.predict(self._xgboost.DMatrix(data), validate_features=False)


def load(model_dir: str) -> Any:
    """Load model.pt in TorchScript, or xgboost-model.

    Raises:
        FileNotFoundError: The model has neither.
    """
    path, booster = Path(model_dir, TORCHSCRIPT), Path(model_dir, BOOSTER)
    if booster.exists():
        return Booster(booster)
    others = [file for file in Path(model_dir).iterdir() if file.suffix in (".pt", ".pth")]
    if not path.exists() and len(others) == 1:  # of any name, as AWS's toolkit takes it
        path = others[0]
    if not path.exists():
        if "HF_TASK" in os.environ or "HF_MODEL_ID" in os.environ or Path(model_dir, "config.json").exists():
            raise FileNotFoundError(HUGGING_FACE)
        raise FileNotFoundError(
            f"the model has no code/inference.py that defines model_fn, and no {TORCHSCRIPT} in TorchScript"
        )
    torch: Any = importlib.import_module("torch")
    return torch.jit.load(str(path), map_location="cpu").eval()


def decode(body: str | bytes, content_type: str) -> Any:
    """Read a JSON, CSV or NumPy body as an array."""
    import numpy as np

    kind = content_type.partition(";")[0].strip().lower()
    body = body.encode() if isinstance(body, str) else body
    if kind == DEFAULT_TYPE:
        return np.array(json.loads(body), dtype=np.float32)
    if kind == CSV:
        return np.genfromtxt(io.BytesIO(body), dtype=np.float32, delimiter=",", ndmin=2)
    if kind == NPY:
        return np.load(io.BytesIO(body), allow_pickle=False)
    raise UnsupportedType(f"Content type {content_type} is not supported by the default input_fn.")


def predict(data: Any, model: Any) -> Any:
    """Predict with a PyTorch module or anything that has `predict`."""
    if not hasattr(model, "state_dict"):
        return model.predict(data)
    torch: Any = importlib.import_module("torch")
    with torch.no_grad():
        return model(torch.as_tensor(data)).numpy()


def encode(prediction: Any, accept: str) -> tuple[bytes, str]:
    """Write a prediction as JSON, CSV or NumPy."""
    import numpy as np

    array = np.asarray(prediction)
    kind = accept.partition(";")[0].strip().lower()
    if kind in ("", "*/*", DEFAULT_TYPE):
        return json.dumps(array.tolist()).encode(), DEFAULT_TYPE
    target = io.BytesIO()
    if kind == CSV:
        np.savetxt(target, np.atleast_1d(array), delimiter=",", fmt="%.9g")
    elif kind == NPY:
        np.save(target, array)
    else:
        raise UnsupportedType(f"Accept type {accept} is not supported by the default output_fn.")
    return target.getvalue(), kind


def script_of(model_dir: Path) -> ModuleType | None:
    """Import the model's script: SAGEMAKER_PROGRAM (inference.py) of code/. None where there is none."""
    program = os.environ.get("SAGEMAKER_PROGRAM") or "inference.py"
    given = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "").removeprefix("file://")
    code = Path(given) if given.startswith("/") and Path(given).is_dir() else model_dir / "code"
    path = code / program
    if not path.exists():
        return None
    sys.path.insert(0, str(code))
    spec = importlib.util.spec_from_file_location(Path(program).stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a python script")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def handler_of(handlers: Handlers) -> type[BaseHTTPRequestHandler]:
    """Build the request handler."""
    lock = threading.Lock()  # models are not expected to be thread-safe

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200 if self.path == "/ping" else 404, b"", "text/plain")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            accept = self.headers.get("Accept") or os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "")
            accept = DEFAULT_TYPE if accept in ("", "*/*") else accept
            try:
                with lock:
                    content, kind = handlers.answer(
                        body, self.headers.get("Content-Type") or DEFAULT_TYPE, accept
                    )
            except UnsupportedType as error:
                self._send(415, str(error).encode(), "text/plain")
            except Exception as error:
                traceback.print_exc()
                self._send(500, f"{type(error).__name__}: {error}".encode(), "text/plain")
            else:
                self._send(200, content, kind)

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            return

    return Handler


def main() -> None:
    """Load the model and serve it on SAGEMAKER_BIND_TO_PORT (8080)."""
    model_dir = Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model"))
    text = () if "--bytes" in sys.argv else (DEFAULT_TYPE, CSV)
    handlers = Handlers(model_dir, script_of(model_dir), text)
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
    ThreadingHTTPServer(("127.0.0.1", port), handler_of(handlers)).serve_forever()


if __name__ == "__main__":
    main()
