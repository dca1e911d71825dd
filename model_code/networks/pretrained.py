"""The address of an architecture's weights at torchvision: `python -m model_code.networks.pretrained mobilenet_v2`.

A program of its own, so that a process that must not load torch can ask it.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

from model_code.networks.torchvision_compat import torchvision


def weights_url(architecture: str, name: str = "DEFAULT") -> str:
    """Return the URL of a torchvision weights file; its suffix is preceded by the start of its SHA-256 (torch.hub).

    Args:
        architecture: torchvision's name.
        name: A member of the architecture's weights enum, like IMAGENET1K_V1, or DEFAULT.

    Raises:
        ValueError: The architecture or the name is unknown; the message lists the known ones.
    """
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
