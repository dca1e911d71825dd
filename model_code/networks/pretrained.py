"""The address of an architecture's weights: `python -m model_code.networks.pretrained mobilenet_v2`.

A program of its own, so that a process that must not load torch can ask it.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

from model_code.hyperparameters.architectures import TIMM, timm_recipe
from model_code.networks.torchvision_compat import torchvision


def weights_url(architecture: str, name: str = "DEFAULT") -> str:
    """Return the URL of a weights file; torch.hub's end in the start of their SHA-256.

    Args:
        architecture: torchvision's name, or `timm:` and timm's.
        name: A member of the architecture's weights enum, like IMAGENET1K_V1, or DEFAULT; of timm, the tag of a
            configuration, like in1k.

    Raises:
        ValueError: The architecture or the name is unknown, or has no weights; the message lists the known ones.
    """
    if architecture.startswith(TIMM):
        return _timm_url(architecture, name)
    models = torchvision.models
    names = models.list_models(module=models)
    if architecture not in names:
        near = difflib.get_close_matches(architecture, names, 3) or names
        raise ValueError(
            f"torchvision has no classification model {architecture!r}; did you mean {' or '.join(near)}?"
        )
    known = models.get_model_weights(architecture)
    if name not in known.__members__:
        raise ValueError(
            f"{architecture} has no weights {name!r}; torchvision has {', '.join(known.__members__)}"
        )
    return str(known[name].url)


def _timm_url(architecture: str, name: str) -> str:
    from timm.models import get_pretrained_cfg

    timm_recipe(architecture)
    bare = architecture.removeprefix(TIMM)
    try:
        config = get_pretrained_cfg(
            bare if name == "DEFAULT" else f"{bare}.{name.lower()}", allow_unregistered=False
        )
    except RuntimeError as error:
        raise ValueError(f"{architecture} has no weights {name!r}; timm's page lists its tags") from error
    if config.url:
        return str(config.url)
    if config.hf_hub_id:
        return f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
    raise ValueError(f"timm has no weights of {architecture}: give a file")


def main(argv: Sequence[str]) -> int:
    """Print the URL of `<architecture> [<name>]`; returns the exit code."""
    try:
        print(weights_url(*argv))
    except (TypeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
