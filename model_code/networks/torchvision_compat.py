"""Import torchvision from here.

torchvision's wheel from PyPI is built for CUDA torch. With a CPU build of torch its compiled operators do
not load, and the import fails on registering shape functions ("operator torchvision::nms does not exist").
Declaring the two operator schemas first lets models and transforms work; boxes, which we do not use, would
still fail. Where torchvision is complete this does nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None  # the schemas live only as long as this object


def _compiled_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    for path in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
        except OSError:
            return False
    return True


def import_torchvision() -> ModuleType:
    """Import torchvision with `models` and `transforms` usable, whatever build of torch is installed.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    global _library
    if _library is None and not _compiled_operators_load():
        _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS:
            with contextlib.suppress(RuntimeError):  # declared already
                _library.define(schema)  # type: ignore[no-untyped-call]
    return importlib.import_module("torchvision")


torchvision = import_torchvision()
