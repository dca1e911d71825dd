"""search-cost: CPU-seconds of 20 trials x 30 epochs, embeddings included, against training on photos.

The peer is the loop of the student pipeline that this project grew out of: random crops through Pillow, the
whole frozen backbone forward for every photo of every epoch of every trial, a two-layer classifier. It is
measured on a slice in the same run and scaled by photos; its architecture is ours.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks._shared import need, shared
from model_code.data.manifest import Manifest
from model_code.data.records import Fractions, Photo
from model_code.data.scan import scan
from model_code.data.shards import Sample, Split, write_shard
from model_code.data.source import Folder
from model_code.data.splits import assign
from model_code.networks.torchvision_compat import torchvision
from model_code.networks.weights import load_state_dict
from model_code.process.parallel import ordered_map

LIMIT = 1000.0
_BATCH = 32
_SHARD_PHOTOS = 3000


def child_cpu_seconds(argv: Sequence[str]) -> float:
    """User and system CPU time of a module run as a process, its imports included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", *argv], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ours(
    source: Folder, splits: dict[Split, list[Photo]], options: argparse.Namespace, work: Path
) -> dict[str, float]:
    """CPU-seconds of embedding train and valid, and of the search."""
    cost = {"embed": 0.0}
    classes = sorted({photo.label for photos in splits.values() for photo in photos})
    manifest = Manifest("search-cost", None, 0, Fractions(), tuple(classes), {}, (), "0" * 64, ())
    (work / "manifest.json").write_text(manifest.to_json())
    for split in (Split.TRAIN, Split.VALID):
        (work / split / "shards").mkdir(parents=True)

        def sample(photo: Photo) -> Sample:
            return Sample(photo.key, photo.label, source.read(photo.path), photo.suffix)

        photos = splits[split]
        for start in range(0, len(photos), _SHARD_PHOTOS):
            path = work / split / "shards" / f"{start:064d}.tar"
            write_shard(path, split, ordered_map(sample, photos[start : start + _SHARD_PHOTOS]))
        cost["embed"] += child_cpu_seconds(
            ["model_code.embed", "--shards", str(work / split / "shards"), "--output", str(work / split / "embedded"),
             "--weights", str(options.weights), "--architecture", options.architecture]
        )  # fmt: skip
    cost["search"] = child_cpu_seconds(
        ["model_code.tune", "--train", str(work / "train/embedded"), "--valid", str(work / "valid/embedded"),
         "--dataset", str(work), "--model_dir", str(work / "model"), "--architecture", options.architecture,
         "--trials", str(options.trials), "--epochs", str(options.epochs), "--patience", "0"]
    )  # fmt: skip
    return cost


def seed_loop(
    source: Folder, train: Sequence[Photo], valid: Sequence[Photo], options: argparse.Namespace
) -> tuple[float, float]:
    """CPU-seconds per training photo and per validation photo of the peer's loop, after a first batch."""
    transforms = torchvision.transforms
    augment = transforms.Compose(
        [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    squash = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor()])
    model = torchvision.models.get_model(options.architecture, weights=None)
    model.load_state_dict(load_state_dict(options.weights))
    for parameter in model.parameters():
        parameter.requires_grad = False
    layers = list(model.named_modules())
    path, last = [(name, module) for name, module in layers if isinstance(module, nn.Linear)][-1]
    model.set_submodule(path, nn.Sequential(nn.Linear(last.in_features, 128), nn.ReLU(), nn.Linear(128, 133)))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    criterion = nn.CrossEntropyLoss()

    def batches(photos: Sequence[Photo], transform: object) -> list[torch.Tensor]:
        from PIL import Image

        images = (Image.open(source.root / photo.path).convert("RGB") for photo in photos)
        return list(torch.stack([transform(image) for image in images]).split(_BATCH))  # type: ignore[operator]

    def work(photos: Sequence[Photo], training: bool) -> None:
        model.train(training)
        for start in range(0, len(photos), _BATCH):
            (inputs,) = batches(photos[start : start + _BATCH], augment if training else squash)
            loss = criterion(model(inputs), torch.zeros(len(inputs), dtype=torch.int64))
            if training:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    work(train[:_BATCH], True)
    started = time.process_time()
    work(train, True)
    trained = time.process_time()
    work(valid, False)
    return (trained - started) / len(train), (time.process_time() - trained) / len(valid)


def main() -> int:
    """Print the costs, then the line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_cost", description=__doc__)
    parser.add_argument("--data", type=Path, default=shared("data/stanford-dogs"), help="a folder per class")
    parser.add_argument("--weights", type=Path, default=shared("weights/mobilenet_v2_imagenet.pth"))
    parser.add_argument("--architecture", default="mobilenet_v2")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--slice", type=int, default=256, help="photos that the peer's loop is measured on")
    options = parser.parse_args()
    need(options.data, options.weights)
    source = Folder(options.data)
    photos, _ = scan(source)
    of, _ = assign(photos, {}, 0, Fractions())
    splits = {split: [photo for photo in photos if of.get(photo.sha256) is split] for split in Split}
    train, valid = splits[Split.TRAIN], splits[Split.VALID]
    per_train, per_valid = seed_loop(source, train[: options.slice], valid[: options.slice], options)
    passes = options.trials * options.epochs
    peer = passes * (len(train) * per_train + len(valid) * per_valid)
    with tempfile.TemporaryDirectory(prefix="search-cost-") as work:
        cost = ours(source, splits, options, Path(work))
    total = sum(cost.values())
    rows = [
        ("embed train and valid once", cost["embed"]),
        (f"{options.trials} trials x {options.epochs} epochs on embeddings", cost["search"]),
        ("ours, all of it", total),
        (f"on photos every time (from a slice of {options.slice})", peer),
    ]
    for name, seconds in rows:
        print(f"{name:<50} {seconds:>12,.0f} CPU-seconds")
    print(f"{peer / total:,.0f} times cheaper")
    print(
        json.dumps(
            {
                "name": "search-cost",
                "figure": round(total, 1),
                "unit": "CPU-seconds",
                "limit": LIMIT,
                "peers": {"the seed's loop": round(peer, 1)},
                "ratio": round(peer / total, 1),
                "conditions": {
                    "data": options.data.resolve().name,
                    "train_photos": len(train),
                    "valid_photos": len(valid),
                    "architecture": options.architecture,
                    "trials": options.trials,
                    "epochs": options.epochs,
                    "peer_cpu_seconds_per_photo": round(per_train, 4),
                },
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
