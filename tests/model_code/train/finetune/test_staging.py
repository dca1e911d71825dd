"""Copies of shards: what is read never depends on them, and they stay within their room."""

from __future__ import annotations

import fcntl
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from model_code.data.shards import Split
from model_code.data.transform import Transform
from model_code.train.distributed import World
from model_code.train.finetune import staging
from model_code.train.finetune.index import PhotoIndex, index_shards
from model_code.train.finetune.loader import Batch, Photos, Plan, TrainingStream, stream_once
from tests.model_code import toys
from tests.model_code.serve.running import wait_for

TRANSFORM = Transform(32, 32)
SHARDS, A_SHARD = 6, 12


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    for number in range(SHARDS):
        toys.shard(tmp_path / "mount", Split.TRAIN, A_SHARD // 3, first=A_SHARD * number)
    return tmp_path / "mount"


@pytest.fixture
def index(mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhotoIndex:
    monkeypatch.setattr(staging, "_SPARE_BYTES", 0)
    return index_shards((mount,), toys.CLASSES, tmp_path / "staging")


def copied(index: PhotoIndex) -> set[int]:
    return {number for number, copy in enumerate(index.copies) if copy.exists()}


def in_order(index: PhotoIndex) -> list[np.ndarray]:
    """The photos of each shard as a batch."""
    return np.array_split(np.arange(len(index)), len(index.shards))


def epochs(index: PhotoIndex, workers: int) -> list[Batch]:
    plan = Plan(index, 8, 0, World())
    stream = TrainingStream(Photos(index, TRANSFORM, "trivial", seed=3), plan, 3, workers)
    found = [stream.batch(epoch, step) for epoch in range(3) for step in range(plan.steps)]
    stream.close()
    return found


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other) > 0
    for (pixels, labels), (more_pixels, more_labels) in zip(one, other, strict=True):
        assert torch.equal(pixels, more_pixels)
        assert torch.equal(labels, more_labels)


def test_photos_are_read_from_complete_copies(index: PhotoIndex, mount: Path) -> None:
    expected = [index.read(photo) for photo in range(len(index))]
    batches = in_order(index)
    results = staging.follow(iter(batches), index, [batches])
    next(results)
    last = set(range(1, SHARDS))
    wait_for(lambda: copied(index) >= last, "copies of the shards that are still to be read")
    for number in last:
        shard = index.shards[number]
        assert index.copies[number].read_bytes() == shard.read_bytes()
        shard.rename(shard.with_suffix(".gone"))
    for photo in range(A_SHARD, len(index)):
        assert index.read(photo) == expected[photo]
    assert len(list(results)) == SHARDS - 1
    assert list(index.copies[0].parent.iterdir()) == []


def test_copies_stay_within_their_room_and_go_with_the_window(
    index: PhotoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "MOST_BYTES", 2.5 * index.size.sum() / SHARDS)
    batches = in_order(index)

    def reading() -> Iterator[int]:
        for number in range(SHARDS):
            ahead = set(range(number, min(number + 2, SHARDS)))
            wait_for(lambda ahead=ahead: copied(index) == ahead, f"copies of {ahead}")
            yield number

    assert list(staging.follow(reading(), index, [batches])) == list(range(SHARDS))
    assert copied(index) == set()


def test_a_shard_that_the_next_epoch_needs_soon_is_kept(index: PhotoIndex) -> None:
    batches = in_order(index)
    passes = [batches, batches[::-1], batches]
    results = staging.follow(iter(range(3 * SHARDS)), index, passes)
    for _ in range(SHARDS):
        next(results)
    wait_for(lambda: copied(index) == set(range(SHARDS)), "the copies of the second epoch")
    results.close()  # type: ignore[attr-defined]
    assert copied(index) == set()


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_are_those_of_file_mode_whatever_happens_to_the_copies(
    index: PhotoIndex, mount: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = epochs(index_shards((mount,), toys.CLASSES), 0)
    assert_same(expected, epochs(index, workers))
    monkeypatch.setattr(staging, "MOST_BYTES", 2.5 * index.size.sum() / SHARDS)
    assert_same(expected, epochs(index, workers))
    ended, deleted = threading.Event(), 0

    def delete() -> None:
        nonlocal deleted
        draw = random.Random(0)
        while not ended.wait(0.001):
            for number in copied(index):
                if draw.random() < 0.5:
                    index.copies[number].unlink(missing_ok=True)
                    deleted += 1

    enemy = threading.Thread(target=delete)
    enemy.start()
    try:
        assert_same(expected, epochs(index, workers))
    finally:
        ended.set()
        enemy.join()
    assert deleted > 0


def test_a_resumed_stream_stages_the_rest(index: PhotoIndex, mount: Path) -> None:
    expected = epochs(index_shards((mount,), toys.CLASSES), 0)
    plan = Plan(index, 8, 0, World())
    stream = TrainingStream(Photos(index, TRANSFORM, "trivial", seed=3), plan, 3, 2)
    assert_same(expected[plan.steps + 3 :], [
        stream.batch(epoch, step)
        for epoch in (1, 2)
        for step in range(3 if epoch == 1 else 0, plan.steps)
    ])  # fmt: skip
    stream.close()
    assert copied(index) == set()


@pytest.mark.parametrize("fault", ["full", "another rank", "cut short", "no folder"])
def test_without_copies_photos_are_read_in_place(
    index: PhotoIndex,
    mount: Path,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = epochs(index_shards((mount,), toys.CLASSES), 0)
    folder = index.copies[0].parent
    others = ExitStack()
    if fault == "full":
        monkeypatch.setattr(staging, "_SPARE_BYTES", shutil.disk_usage(mount).total)
    elif fault == "another rank":
        folder.mkdir()
        for copy in index.copies:
            fcntl.flock(others.enter_context(copy.with_suffix(".part").open("ab")), fcntl.LOCK_EX)
    elif fault == "cut short":
        monkeypatch.setattr(
            shutil, "copyfileobj", lambda source, target, size: target.write(source.read(100))
        )
    else:
        folder.touch()
    seen = set[int]()
    plan = Plan(index, 8, 0, World())
    stream = TrainingStream(Photos(index, TRANSFORM, "trivial", seed=3), plan, 3, 0)
    found = []
    for epoch in range(3):
        for step in range(plan.steps):
            found.append(stream.batch(epoch, step))
            seen |= copied(index)
    assert_same(expected, found)
    assert seen == set()
    stream.close()
    others.close()
    assert ("read in place" in capsys.readouterr().out) == (fault == "no folder")


def test_what_a_killed_copy_left_is_overwritten(index: PhotoIndex) -> None:
    shard, copy = index.shards[0], index.copies[0]
    copy.parent.mkdir()
    copy.with_suffix(".part").write_bytes(b"x" * 100)
    staging._copy(shard, copy)
    assert copy.read_bytes() == shard.read_bytes()
    assert not copy.with_suffix(".part").exists()


def test_validation_photos_are_staged_too_and_none_are_no_fault(index: PhotoIndex) -> None:
    photos = Photos(index, TRANSFORM)
    whole = list(stream_once(photos, np.arange(len(index)), 10, 2))
    assert sum(len(labels) for _, labels in whole) == len(index)
    assert list(stream_once(photos, np.arange(0), 10, 0)) == []
    assert copied(index) == set()


def test_a_copy_of_an_earlier_file_is_not_read(index: PhotoIndex, mount: Path) -> None:
    changed = index.shards[0]
    changed.write_bytes(changed.read_bytes())
    again = index_shards.__wrapped__((mount,), toys.CLASSES, index.copies[0].parent)
    assert again.copies[0] != index.copies[0]
    assert again.copies[1:] == index.copies[1:]
