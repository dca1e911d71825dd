"""finetune-gpu: photos/s of fine-tuning from shards, against the same step on photos already in GPU memory.

What is lost between the two is what reading, decoding and augmenting cost the accelerator. The lower of the GPU's
own rate and that of the decoders alone is the most that any loader could give on these cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks._shared import need, shared
from model_code.data.records import Photo
from model_code.data.scan import scan
from model_code.data.shards import Sample, Split, write_shard
from model_code.data.source import Folder
from model_code.data.transform import for_architecture
from model_code.hyperparameters import resolve
from model_code.networks.backbone import build_backbone
from model_code.networks.head import Head
from model_code.process.parallel import ordered_map
from model_code.train.distributed import World, pick_device
from model_code.train.finetune.index import index_shards
from model_code.train.finetune.loader import (
    Batch,
    Photos,
    Plan,
    TrainingStream,
    decoders_for_gpu,
)
from model_code.train.finetune.task import FinetuneRecipe, FinetuneTask, Network, PhotoSource, pick_precision

LIMIT = 0.85
_SHARD_PHOTOS = 3000
_WARM_STEPS = 10


def write_shards(source: Folder, photos: Sequence[Photo], folder: Path) -> None:
    """All photos as training shards."""

    def sample(photo: Photo) -> Sample:
        return Sample(photo.key, photo.label, source.read(photo.path), photo.suffix)

    for start in range(0, len(photos), _SHARD_PHOTOS):
        path = folder / f"{start:064d}.tar"
        write_shard(path, Split.TRAIN, ordered_map(sample, photos[start : start + _SHARD_PHOTOS]))


def rate(
    options: argparse.Namespace,
    batch: Callable[[int, int], Batch],
    steps: int,
    classes: int,
    device: torch.device,
) -> float:
    """Photos/s over `options.steps` steps, after some to warm up."""
    backbone = build_backbone(options.architecture)
    recipe = FinetuneRecipe.of(
        resolve({"strategy": "finetune", "batch_size": options.batch_size, "blocks": options.blocks})
    )
    head = Head(torch.zeros(backbone.dim), torch.ones(backbone.dim), classes, dropout=recipe.dropout)
    source = PhotoSource(steps=steps, batch=batch, batch_photos=lambda step: options.batch_size)
    network = Network(backbone, head)
    task = FinetuneTask(
        recipe, network, for_architecture(options.architecture), source, None, World(device=device)
    )

    def run(first: int, count: int) -> None:
        for number in range(first, first + count):
            task.train_step(number // steps, number % steps)
        torch.cuda.synchronize()

    run(0, _WARM_STEPS)
    started = time.perf_counter()
    run(_WARM_STEPS, options.steps)
    return options.steps * options.batch_size / (time.perf_counter() - started)


def decoding(stream: TrainingStream, plan: Plan, steps: int) -> float:
    """Photos/s of the decoders alone, with no GPU to wait for."""

    def run(first: int, count: int) -> int:
        return sum(
            len(stream.batch(number // plan.steps, number % plan.steps)[1])
            for number in range(first, first + count)
        )

    run(0, _WARM_STEPS)
    started = time.perf_counter()
    return run(_WARM_STEPS, steps) / (time.perf_counter() - started)


def main() -> int:
    """Print the rates, then the line of JSON; one line where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune_gpu", description=__doc__)
    parser.add_argument("--data", type=Path, default=shared("data/stanford-dogs"), help="a folder per class")
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=0, help="blocks that are trained; 0: all")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, default=decoders_for_gpu())
    options = parser.parse_args()
    device = pick_device()
    if device.type != "cuda":
        print("skipped: no GPU here; finetune-gpu compares decoding with a GPU's appetite")
        return 0
    need(options.data)
    source = Folder(options.data)
    photos, _ = scan(source)
    classes = tuple(sorted({photo.label for photo in photos}))
    transform = for_architecture(options.architecture)
    with tempfile.TemporaryDirectory(prefix="finetune-gpu-") as scratch:
        write_shards(source, photos, Path(scratch))
        index = index_shards((Path(scratch),), classes)
        # Whole batches only, so that both sides do the same number of photos per step.
        plan = Plan(index, options.batch_size, 0, World())
        sizes = {plan.batch_photos(step) for step in range(plan.steps)}
        options.batch_size = min(sizes)
        epochs = (_WARM_STEPS + options.steps) // plan.steps + 2
        photos_in_order = Photos(index, transform, "trivial")

        def stream() -> TrainingStream:
            return TrainingStream(photos_in_order, plan, epochs, options.workers, pinned=True)

        training = stream()

        def from_shards(epoch: int, step: int) -> Batch:
            pixels, labels = training.batch(epoch, step)
            return pixels[: options.batch_size], labels[: options.batch_size]

        side = transform.crop
        resident = (
            torch.randint(0, 256, (options.batch_size, side, side, 3), dtype=torch.uint8, device=device),
            torch.randint(0, len(classes), (options.batch_size,), device=device),
        )
        in_memory = rate(options, lambda epoch, step: resident, plan.steps, len(classes), device)
        streamed = rate(options, from_shards, plan.steps, len(classes), device)
        training = stream()  # the other's decoders end
        decoded = decoding(training, plan, options.steps)
    print(f"{'photos already in GPU memory':<32} {in_memory:>10,.0f} photos/s")
    print(f"{'decoders alone':<32} {decoded:>10,.0f} photos/s")
    print(f"{'photos from shards':<32} {streamed:>10,.0f} photos/s")
    print(
        json.dumps(
            {
                "name": "finetune-gpu",
                "figure": round(streamed, 1),
                "unit": "photos/s",
                "limit": LIMIT,
                "peers": {"in GPU memory": round(in_memory, 1), "decoders alone": round(decoded, 1)},
                "ratio": round(streamed / in_memory, 3),
                "conditions": {
                    "device": torch.cuda.get_device_name(device),
                    "architecture": options.architecture,
                    "batch_size": options.batch_size,
                    "blocks": options.blocks,
                    "workers": options.workers,
                    "precision": str(pick_precision("auto", device)).removeprefix("torch."),
                },
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
