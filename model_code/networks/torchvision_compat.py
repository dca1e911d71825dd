"""Import torchvision from here.

torchvision's wheel from PyPI is built for CUDA torch. With a CPU build of torch its compiled operators do
not load, and the import fails on registering shape functions ("operator torchvision::nms does not exist").
Declaring the two operator schemas first lets models and transforms work; boxes, which we do not use, would
still fail. Where torchvision is complete this does nothing.

The operators on boxes also import torch's compiler, for one function that says whether it runs on a device. That is
half of torchvision's import (1.7 s of CPU in every job that builds a network), so they get a stand-in that says no.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
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


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Stand in for torch._dynamo while torchvision is imported, unless it is there already."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    package, utils = ModuleType("torch._dynamo"), ModuleType("torch._dynamo.utils")
    utils.is_compile_supported = lambda device: False  # type: ignore[attr-defined]
    stand_ins = {"torch._dynamo": package, "torch._dynamo.utils": utils}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


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
    with _without_compiler():
        return importlib.import_module("torchvision")


torchvision = import_torchvision()
