"""The model that the serving benchmarks serve: mobilenet_v2 with ImageNet's own classifier, cut to the dog breeds.

Nothing is trained: the rows of the 1,000-class classifier that belong to the breeds are the head. What is measured is
speed, on the real network with real weights, exported as every model of this project is.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._shared import need, shared

ARCHITECTURE = "mobilenet_v2"
CACHE = Path(__file__).resolve().parent.parent / ".run" / "bench"
WEIGHTS = shared("weights/mobilenet_v2_imagenet.pth")
PHOTOS = shared("data/stanford-dogs")
BREEDS = shared("data/breeds.csv")
_CALIBRATION, _VALID, _LOAD = 96, 480, 256


def load_photos() -> list[Path]:
    """The photos that make the load: every class, none of those that calibrated int8."""
    return _spread()[_CALIBRATION + _VALID :][:_LOAD]


def bundle() -> Path:
    """The folder of the bundle; built on the first call (about a minute) and kept."""
    need(WEIGHTS, PHOTOS, BREEDS)
    code = Path(__file__).resolve().parent.parent / "model_code"
    made_by = [
        Path(__file__),
        *(
            code / f"{name}.py"
            for name in (
                "export/assemble",
                "export/golden",
                "export/onnx_graph",
                "export/int8/make",
                "export/int8/guard",
                "export/int8/search",
                "export/int8/quantize",
                "export/int8/correction",
                "bundle/card",
            )
        ),
    ]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in made_by)).hexdigest()[:12]
    folder = CACHE / f"bundle-{digest}"
    if not (folder / "model.json").is_file():
        print(f"exporting {ARCHITECTURE} to {folder} (once)", file=sys.stderr, flush=True)
        for older in CACHE.glob("bundle-*"):
            shutil.rmtree(older) if older.is_dir() else older.unlink()
        unfinished = CACHE / f"bundle-{digest}.part"
        unfinished.mkdir(parents=True)
        _export(unfinished)
        unfinished.rename(folder)
    return folder


def _spread() -> list[Path]:
    """All photos, class after class in turn."""
    classes = [sorted(folder.glob("*.jpg")) for folder in sorted(PHOTOS.iterdir()) if folder.is_dir()]
    return [photos[n] for n in range(max(map(len, classes))) for photos in classes if n < len(photos)]


def _export(folder: Path) -> None:
    import torch

    from model_code.data.shards import Split, write_shard
    from model_code.data.transform import for_architecture
    from model_code.export.assemble import export_bundle
    from model_code.networks.backbone import attach_head, build_backbone
    from model_code.networks.weights import load_state_dict
    from model_code.process.code_version import code_version

    with BREEDS.open(encoding="utf-8") as table:
        rows = {row["breed"]: int(row["imagenet_index"]) for row in csv.DictReader(table)}
    classes = sorted(path.name for path in PHOTOS.iterdir() if path.is_dir())
    chosen = [rows[name] for name in classes]
    weights = load_state_dict(WEIGHTS)
    head = torch.nn.Linear(weights["classifier.1.weight"].shape[1], len(classes))
    head.weight.data, head.bias.data = (
        weights["classifier.1.weight"][chosen],
        weights["classifier.1.bias"][chosen],
    )
    model = attach_head(build_backbone(ARCHITECTURE, WEIGHTS), head)
    photos = _spread()
    train, valid = folder.with_suffix(".train.tar"), folder.with_suffix(".valid.tar")
    write_shard(train, Split.TRAIN, _samples(photos[:_CALIBRATION]))
    write_shard(valid, Split.VALID, _samples(photos[_CALIBRATION : _CALIBRATION + _VALID]))
    export_bundle(
        output=folder,
        model=model,
        reference_model=model,
        card={
            "name": "dogs",
            "architecture": ARCHITECTURE,
            "classes": classes,
            "transform": for_architecture(ARCHITECTURE),
            "temperature": 1.0,
            "abstain_threshold": 0.3,
            "metrics": {},
            "hyperparameters": {},
            "dataset": {"name": "stanford-dogs", "version": "benchmark"},
            "embedder_id": None,
            "weights_sha256": hashlib.sha256(WEIGHTS.read_bytes()).hexdigest(),
            "code_version": code_version(),
        },
        calibration_shards=[train],
        valid_shards=[valid],
    )


def _samples(paths: list[Path]) -> Iterator[Any]:
    from model_code.data.shards import Sample, key_of

    for path in paths:
        data = path.read_bytes()
        yield Sample(key_of(hashlib.sha256(data).hexdigest()), path.parent.name, data, "jpg")
