"""Photos of shards in training order: the order of photos, and processes that decode ahead of the trainer.

Any batch can be fetched without reading the photos before it: an interrupted run resumes at a step, and several ranks
take exact parts of one batch. Photos are shuffled within a window of the shard order, so that reads stay close.
"""

import os
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model_code.data import photos
from model_code.data.shards import ShardError
from model_code.data.transform import Transform
from model_code.networks.torchvision_compat import torchvision  # noqa: F401  (before torchvision.transforms)
from model_code.process.cores import cores
from model_code.train.distributed import World
from model_code.train.finetune.index import PhotoIndex
from model_code.train.finetune.staging import Batches, follow

# Photos move by up to this many places: 4,096 photos of 224 pixels are about 60 MB of reads.
WINDOW: Final = 4096
_PREFETCH: Final = 4
_WORKER_LIMIT: Final = 32

Position = tuple[int, int]
Batch = tuple[Tensor, Tensor]


class Plan:
    """Assigns photos to ranks and steps; a pure function of (seed, epoch, step).

    Where every rank holds the same shards, each global batch is the same whatever the number of ranks, and
    they share it. Where SageMaker gave each rank its own shards (ShardedByS3Key), each fills its part of every batch
    from those.

    Args:
        index: This rank's photos.
        batch_size: Photos per step, over all ranks.
        seed: Draws the order.
        world: The ranks. Making a plan is collective.
    """

    def __init__(self, index: PhotoIndex, batch_size: int, seed: int, world: World) -> None:
        self._index = index
        self._seed = seed
        self._world = world
        held = world.gather([path.name for path in index.shards])
        self.replicated = all(names == held[0] for names in held)
        self.photos_held: list[int] = world.gather(len(index))
        self.photos = len(index) if self.replicated else sum(self.photos_held)
        self.steps = max(1, round(self.photos / batch_size))
        if min(self.photos_held) < self.steps:
            raise ShardError(
                f"an instance has {min(self.photos_held)} photos for {self.steps} steps; "
                "raise batch_size or use fewer instances"
            )
        self._cached: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """This rank's photos, as numbers in its index."""
        if self._cached[0] != epoch:
            self._cached = (epoch, self.batches(epoch))
        batch = self._cached[1][step]
        return batch[self._world.share(len(batch))] if self.replicated else batch

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the photos of each step, of all ranks that share a batch."""
        # Even cuts: no batch has only a photo or two, whose gradient would be noise.
        return np.array_split(self._order(epoch), self.steps)

    def batch_photos(self, step: int) -> int:
        """Return photos in the global batch of a step."""
        if self.replicated:
            return _part(self.photos, self.steps, step)
        return sum(_part(held, self.steps, step) for held in self.photos_held)

    def share(self) -> NDArray[np.int64]:
        """This rank's part of all photos, each once, in order: for validation and features."""
        everything = np.arange(len(self._index))
        return everything[self._world.share(len(everything))] if self.replicated else everything

    def _order(self, epoch: int) -> NDArray[np.int64]:
        draw = np.random.default_rng([self._seed, epoch])
        index = self._index
        place = draw.permutation(len(index.shards))[index.shard]
        in_order = np.argsort(place, kind="stable")
        stirred = np.arange(len(index)) + draw.uniform(0, WINDOW, len(index))
        return in_order[np.argsort(stirred, kind="stable")]


def _part(total: int, parts: int, number: int) -> int:
    return total // parts + (number < total % parts)


class Photos(Dataset[Any]):
    """Decoded photos for a `DataLoader`: whole batches, uint8 [n, h, w, 3], a quarter of float32's bytes.

    Args:
        index: Where the photos are.
        transform: The transform of the served model; augmentations keep its size.
        augmentation: none, flip, trivial (TrivialAugment) or rand (RandAugment), both on random crops.
        seed: With the epoch and the photo's key, draws its variation: the same on any rank and in any worker.
    """

    def __init__(
        self, index: PhotoIndex, transform: Transform, augmentation: str = "none", seed: int = 0
    ) -> None:
        self.index = index
        self._transform = transform
        self._augmentation = augmentation
        self._seed = seed
        self._policy = _policy(augmentation)

    def __len__(self) -> int:
        return len(self.index)

    def __getitems__(self, positions: Sequence[Position]) -> Batch:
        """Return the batch of (epoch, photo) pairs: pixels and labels [n]."""
        side = self._transform.crop
        pixels = torch.empty((len(positions), side, side, 3), dtype=torch.uint8)
        filled = pixels.numpy()
        for row, (epoch, photo) in enumerate(positions):
            filled[row] = self._one(epoch, photo)
        return pixels, torch.from_numpy(self.index.labels[[photo for _, photo in positions]])

    def _one(self, epoch: int, photo: int) -> photos.Pixels:
        data = self.index.read(photo)
        if self._augmentation == "none":
            return self._transform.pixels(data)
        draw = random.Random(f"{self._seed}:{epoch}:{self.index.keys[photo]}")
        if self._augmentation == "flip":
            pixels = self._transform.pixels(data)
            return np.ascontiguousarray(pixels[:, ::-1]) if draw.random() < 0.5 else pixels
        image = photos.decode(data, min_side=2 * self._transform.resize)
        pixels = self._transform.crop_random(image, draw)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.getrandbits(62))
            return np.array(self._policy(Image.fromarray(pixels)), dtype=np.uint8)


def _policy(augmentation: str) -> Any:
    from torchvision.transforms import v2

    return {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment}.get(augmentation, lambda: None)()


def decoders_for_gpu() -> int:
    """Decoders to start when training on a GPU: the cores that the trainer's own threads leave.

    Those are the forward pass, the backward pass and the pinning of batches. With an H100 on 16 cores, 13 decoders
    gave 0.94 of the rate that resnet50 has without any, and 15 gave 0.87.
    """
    return max(1, cores() - 1 - cores() // 8)


def _whole(batch: Any) -> Any:
    return batch


def _step_back(worker: int) -> None:
    """Lower a decoder's priority, so that a GPU never waits for its next kernel behind a decoder."""
    del worker
    os.nice(10)


class _Positions:
    """The batches of a plan from a step on, epoch after epoch, as a `DataLoader`'s batch sampler."""

    def __init__(self, plan: Plan, epoch: int, step: int, epochs: int) -> None:
        self._plan, self._epoch, self._step, self._epochs = plan, epoch, step, epochs

    def __iter__(self) -> Iterator[list[Position]]:
        for epoch in range(self._epoch, self._epochs):
            for step in range(self._step if epoch == self._epoch else 0, self._plan.steps):
                yield [(epoch, int(photo)) for photo in self._plan.batch(epoch, step)]


def _load(
    dataset: Photos, batches: Any, passes: Iterable[Batches], workers: int, pinned: bool
) -> Iterator[Batch]:
    loader = DataLoader(
        dataset,
        batch_sampler=cast(Any, batches),
        num_workers=min(workers, _WORKER_LIMIT),
        collate_fn=_whole,
        worker_init_fn=_step_back if pinned else None,
        pin_memory=pinned,
        prefetch_factor=_PREFETCH if workers else None,
        # A forked decoder starts at once; a fresh one would first import torch, for seconds. It never
        # touches a GPU.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
    return follow(iter(loader), dataset.index, passes)


class TrainingStream:
    """Batches of a plan in order, decoded ahead by worker processes; the workers run through epoch ends.

    Args:
        dataset: The photos to decode.
        plan: The plan to follow.
        epochs: Where the stream ends.
        workers: Processes that decode; 0: this one.
        pinned: Whether batches go to a GPU.
    """

    def __init__(self, dataset: Photos, plan: Plan, epochs: int, workers: int, pinned: bool = False) -> None:
        self._dataset, self._plan, self._epochs = dataset, plan, epochs
        self._workers, self._pinned = workers, pinned
        self._next: Position | None = None
        self._batches: Iterator[Batch] = iter(())

    def batch(self, epoch: int, step: int) -> Batch:
        """This rank's part of a batch: pixels uint8 [n, h, w, 3], labels [n]. Fast if called in order."""
        if self._next != (epoch, step):
            positions = _Positions(self._plan, epoch, step, self._epochs)
            passes = (
                self._plan.batches(later)[step if later == epoch else 0 :]
                for later in range(epoch, self._epochs)
            )
            self._batches = _load(self._dataset, positions, passes, self._workers, self._pinned)
        self._next = (epoch, step + 1) if step + 1 < self._plan.steps else (epoch + 1, 0)
        return next(self._batches)

    def close(self) -> None:
        """End the decoders, and delete copies of shards."""
        self._next, self._batches = None, iter(())


def stream_once(
    dataset: Photos, numbers: NDArray[np.int64], batch_size: int, workers: int, pinned: bool = False
) -> Iterator[Batch]:
    """Return the photos with these numbers, once, in this order."""
    parts = [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]
    positions = [[(0, int(photo)) for photo in part] for part in parts]
    return _load(dataset, positions, [parts], workers, pinned)
