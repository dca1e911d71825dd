"""Find, check and load the weights of a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_code.process.errors import first_line
from model_code.process.files import sha256_of

_WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema", "state_dict_ema", "net", "network")
_PREFIXES = ("module", "_orig_mod", "_fsdp_wrapped_module")


# How a model.safetensors of this project names the backbone, and what its linear head is called here.
_MODEL_BACKBONE = "backbone.network."
MODEL_HEAD = "head.model"


class ArchitectureError(ValueError):
    """An unknown architecture, or weights that do not fit one."""


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a safetensors file or a torch state_dict file (`weights_only`: nothing is executed).

    A training checkpoint is unwrapped (`state_dict`, `model`, ...), and the prefixes that DataParallel (`module.`),
    torch.compile (`_orig_mod.`) and averaging put before every name are removed. Of a `model.safetensors` of this
    project, the backbone is taken, and its head, where it is linear, as `MODEL_HEAD`.

    Raises:
        ArchitectureError: The file is neither.
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
        raise ArchitectureError(
            f"{path} is not a weights file (state_dict of torch, or safetensors): {first_line(error)}"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ArchitectureError(
            f"{path} holds no state_dict; save it with torch.save(model.state_dict(), path)"
        )
    # torch's AveragedModel counts its averages next to the weights.
    return _without_model({_bare(name): tensor for name, tensor in loaded.items() if name != "n_averaged"})


def _without_model(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    bare = {
        name.removeprefix(_MODEL_BACKBONE): tensor
        for name, tensor in tensors.items()
        if name.startswith(_MODEL_BACKBONE)
    }
    if not bare:
        return tensors
    head = {part: tensors[f"head.{part}"] for part in ("weight", "bias") if f"head.{part}" in tensors}
    return {**bare, **{f"{MODEL_HEAD}.{part}": tensor for part, tensor in head.items()}}


def _bare(name: str) -> str:
    """Return a tensor's name without the wrappers that a training loop put around its model, in any order."""
    parts = name.split(".")
    return ".".join(part for part in parts if part not in _PREFIXES)


@dataclass(frozen=True)
class Weights:
    """A weights file and the SHA-256 that names its content."""

    path: Path
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Weights:
        """Return the weights in `path`, with the digest of the whole file."""
        return cls(path, sha256_of(path))


def find_weights(path: Path | None) -> Weights | None:
    """Find the weights of a channel.

    Args:
        path: The file, or the folder that holds this one file; None leaves the backbone untrained.

    Returns:
        The weights, or None where there are none.

    Raises:
        FileNotFoundError: `path` does not exist, or the folder holds several files.
    """
    if path is None:
        return None
    if path.is_file():
        return Weights.read(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no weights at {path}; give a state_dict file, or leave --weights out")
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    if len(files) > 1:
        raise FileNotFoundError(f"{path} holds {len(files)} files; leave only the one with the weights")
    return Weights.read(files[0]) if files else None
