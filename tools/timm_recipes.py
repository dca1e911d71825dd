"""Rewrite model_code/hyperparameters/timm.json after an update of timm: `python -m tools.timm_recipes`.

The file holds what each of timm's models expects of a photo, so that Airflow, which must not load torch, can name
embeddings and refuse a misspelt architecture.
"""

from __future__ import annotations

import json
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "model_code" / "hyperparameters" / "timm.json"


def recipes() -> list[dict[str, object]]:
    """Return the different inputs of timm's models (square ones) with the names of the models, sorted."""
    from model_code.networks.torchvision_compat import import_torchvision

    import_torchvision()  # timm imports it
    from timm import list_models
    from timm.models import get_pretrained_cfg

    found: dict[tuple[object, ...], list[str]] = {}
    for name in list_models():
        config = get_pretrained_cfg(name)
        channels, height, width = config.input_size
        if channels == 3 and height == width:
            key = (height, config.interpolation, tuple(config.mean), tuple(config.std))
            found.setdefault(key, []).append(name)
    return [
        {"side": side, "interpolation": kernel, "mean": mean, "std": std, "names": " ".join(sorted(names))}
        for (side, kernel, mean, std), names in sorted(found.items(), key=str)
    ]


def text() -> str:
    """Return the file's text: a line per recipe."""
    return "[\n" + ",\n".join(json.dumps(recipe) for recipe in recipes()) + "\n]\n"


if __name__ == "__main__":
    TARGET.write_text(text())
