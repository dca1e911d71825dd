"""int8: test accuracy that int8 costs, in points, over ten disjoint folds of photos that neither training nor int8 saw.

Each architecture gets the head that every search tries first, the search for an int8 form as the export makes it, and
one look at the test photos with both forms. Photos are resized once and every batch goes through both graphs, so the
comparison is paired.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks._shared import need, shared
from model_code import hyperparameters
from model_code.data.records import Photo
from model_code.data.scan import scan
from model_code.data.source import Folder
from model_code.data.transform import for_architecture
from model_code.export.int8 import make
from model_code.export.int8.activations import Floats
from model_code.export.int8.search import PHOTOS_PER_BATCH, Photos, infer, search
from model_code.export.onnx_graph import export_onnx
from model_code.networks.backbone import attach_head, build_backbone
from model_code.networks.classes import assign_rows, pretrained_rows
from model_code.process.cores import cores
from model_code.train.checkpoints import Checkpoints
from model_code.train.distributed import World
from model_code.train.features import Features
from model_code.train.head.task import HeadRecipe, fit_head

LIMITS = {"mean": 0.2, "upper": 0.5}
FOLDS = 10
_WEIGHTS = {
    "squeezenet1_1": "squeezenet1_1_imagenet.pth",
    "mobilenet_v2": "mobilenet_v2_imagenet.pth",
    "timm:tf_efficientnet_lite0": "tf_efficientnet_lite0_imagenet.safetensors",
    "timm:tf_efficientnet_lite2": "tf_efficientnet_lite2_imagenet.safetensors",
}


class Pass:
    """Photos of a folder, as passes of normalized batches."""

    def __init__(self, source: Folder, photos: list[Photo], architecture: str, classes: list[str]) -> None:
        self._source, self._photos = source, photos
        self._transform = for_architecture(architecture)
        self.labels = np.array([classes.index(photo.label) for photo in photos], np.int64)

    def batches(self, size: int = PHOTOS_PER_BATCH) -> Iterator[Floats]:
        """Start a pass."""
        pixels = (self._transform.pixels(self._source.read(photo.path)) for photo in self._photos)
        yield from make.batches(pixels, self._transform, size)

    def calibration(self) -> Iterator[Floats]:
        """Start a pass over the first photos, in batches of two."""
        return islice(self.batches(2), make.CALIBRATION_PHOTOS // 2)


def measure(
    architecture: str, parts: dict[str, Pass], classes: int, weights: Path, folder: Path
) -> dict[str, Any]:
    """Fit a head, search its int8 form, and compare the two on the test photos."""
    backbone = build_backbone(architecture, weights)
    train, valid, test = parts["train"], parts["valid"], parts["test"]
    graph = folder / "model.onnx"
    export_onnx(
        attach_head(backbone, torch.nn.Linear(backbone.dim, classes)),
        for_architecture(architecture).crop,
        graph,
    )
    (seen,) = infer([graph], train.batches(), cores(), "features")
    count = len(seen)
    features = Features(
        torch.from_numpy(seen), torch.arange(count), torch.ones(count, dtype=torch.int64),
        torch.from_numpy(train.labels), tuple(map(str, range(count))),
    )  # fmt: skip
    rows = pretrained_rows(weights, backbone.dim)
    assigned = None if rows is None else assign_rows(rows, features.rows, features.labels, classes)
    recipe = HeadRecipe.of(hyperparameters.resolve({"strategy": "head", "architecture": architecture}))
    head, _ = fit_head(
        recipe, features, None, classes, World(), Checkpoints(None, ""), lambda metrics: None, rows=assigned
    )

    def readout(embeddings: Floats) -> Floats:
        with torch.inference_mode():
            logits: Floats = head(torch.from_numpy(embeddings)).numpy()
        return logits

    started, cpu = time.monotonic(), time.process_time()
    photos = Photos(
        train.calibration, lambda: islice(train.batches(), make.REFIT_PHOTOS // PHOTOS_PER_BATCH),
        valid.batches, valid.labels,
    )  # fmt: skip
    outcome = search(graph, folder, photos, readout, cores())
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    if outcome.kept is None:
        return {"kept": False, "reason": outcome.verdict.reason, "seconds": seconds, "cpu_seconds": cpu}
    kept = outcome.kept
    exact, rounded = infer([graph, kept.path], test.batches(), cores(), "features")
    right = readout(exact).argmax(1) == test.labels
    right_int8 = readout(kept.refit(rounded) if kept.refit else rounded).argmax(1) == test.labels
    lost = 100 * (right.astype(float) - right_int8)
    folds = [float(fold.mean()) for fold in np.array_split(lost, FOLDS)]
    error = float(np.std(folds, ddof=1)) / FOLDS**0.5
    return {
        "kept": True,
        "method": outcome.verdict.method,
        "float32": float(right.mean()),
        "int8": float(right_int8.mean()),
        "mean": float(np.mean(folds)),
        "upper": float(np.mean(folds) + stats.t.ppf(0.95, FOLDS - 1) * error),
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


def main() -> int:
    """Print a row per architecture, then the line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8", description=__doc__)
    parser.add_argument("--data", type=Path, default=shared("data/stanford-dogs"), help="a folder per class")
    parser.add_argument("--architectures", nargs="+", choices=list(_WEIGHTS), default=list(_WEIGHTS))
    parser.add_argument("--train", type=int, default=3000, help="photos that the head is fitted on")
    parser.add_argument("--valid", type=int, default=1200, help="photos that judge the forms")
    parser.add_argument("--test", type=int, default=7800, help="photos of the ten folds")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which photos are dealt")
    options = parser.parse_args()
    need(options.data)
    source = Folder(options.data)
    scanned, _ = scan(source)
    photos = list(scanned)
    classes = sorted({photo.label for photo in photos})
    random.Random(options.seed).shuffle(photos)
    found = {}
    print(
        f"{'architecture':28} {'float32':>8} {'int8':>8} {'lost':>6} {'upper':>6} {'search s':>8} {'CPU s':>6} form"
    )
    for architecture in options.architectures:
        weights = shared(f"weights/{_WEIGHTS[architecture]}")
        need(weights)
        ends = np.cumsum([0, options.train, options.valid, options.test])
        parts = {
            name: Pass(source, photos[start:end], architecture, classes)
            for name, start, end in zip(("train", "valid", "test"), ends, ends[1:], strict=False)
        }
        with tempfile.TemporaryDirectory(prefix="int8-") as folder:
            row = measure(architecture, parts, len(classes), weights, Path(folder))
        found[architecture] = row
        if row["kept"]:
            print(
                f"{architecture:28} {row['float32']:8.4f} {row['int8']:8.4f} {row['mean']:6.2f} {row['upper']:6.2f} "
                f"{row['seconds']:8.1f} {row['cpu_seconds']:6.1f}  {row['method']}",
                flush=True,
            )
        else:
            print(f"{architecture:28} refused: {row['reason']}", flush=True)
    kept = [row for row in found.values() if row["kept"]]
    print("ImageNet's training set contains such photos: the accuracies flatter.")
    print(
        json.dumps(
            {
                "name": "int8",
                "figure": round(max((row["mean"] for row in kept), default=float("nan")), 3),
                "unit": "points lost, the worst architecture",
                "limit": LIMITS["mean"],
                "peers": {},
                "ratio": round(max((row["upper"] for row in kept), default=float("nan")), 3),
                "conditions": {
                    "ratio": f"highest upper 95 % bound; {LIMITS['upper']} wanted",
                    "data": options.data.resolve().name,
                    "photos": [options.train, options.valid, options.test],
                    "seed": options.seed,
                    "architectures": found,
                },
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
