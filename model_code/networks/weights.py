"""Find, check and load the weights of a backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class ArchitectureError(ValueError):
    """An unknown architecture, or weights that do not fit one."""


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file or a torch state_dict file (`weights_only`: nothing in it is
    executed).

    A training checkpoint is unwrapped (`state_dict`, `model`), and the `module.` of DataParallel is cut.

    :raises ArchitectureError: when the file is neither.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
        loaded: Any
        if head[8:9] == b"{":
            from safetensors.torch import load_file

            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors each raise their own
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArchitectureError(
            f"{path} is not a weights file (state_dict of torch, or safetensors): {first}"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ArchitectureError(
            f"{path} holds no state_dict; save it with torch.save(model.state_dict(), path)"
        )
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}


def find_weights(path: Path | None) -> Path | None:
    """The weights file: `path` itself, or the one file in that channel folder; None where there is none.

    :param path: None: the backbone stays untrained.

    :raises FileNotFoundError: when `path` names neither.
    """
    if path is None:
        return None
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"no weights at {path}; give a state_dict file, or leave --weights out")
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    if len(files) > 1:
        raise FileNotFoundError(f"{path} holds {len(files)} files; leave the one with the weights")
    return files[0] if files else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
