"""Splits: properties of the photo, stable over versions, never shared by look-alikes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from model_code.data import duplicates
from model_code.data.records import Fractions, Photo
from model_code.data.shards import Split
from model_code.data.source import DatasetError
from model_code.data.splits import assign

TRAIN, VALID, TEST = Split.TRAIN, Split.VALID, Split.TEST


def near_duplicates(hashes: list[int | None], *distance: int) -> list[tuple[int, int]]:
    return list(
        map(
            tuple,
            duplicates.near_duplicates(
                np.array([value or 0 for value in hashes], np.uint64), *distance
            ).tolist(),
        )
    )


def photos_of(label: str, count: int, first: int = 0, phash: int | None = None) -> list[Photo]:
    return [
        Photo(f"{label}/{n}.jpg", label, f"{label}-{n}".encode().hex().ljust(64, "0"), phash, 1000, "jpg")
        for n in range(first, first + count)
    ]


def count(photos: list[Photo], splits: Mapping[str, Split]) -> dict[str, Counter[Split]]:
    found: dict[str, Counter[Split]] = {}
    for photo in photos:
        found.setdefault(photo.label, Counter())[splits[photo.sha256]] += 1
    return found


def test_each_class_is_split_by_the_fractions() -> None:
    photos = photos_of("cat", 100) + photos_of("dog", 50)
    splits, rejected = assign(photos, {}, seed=1)
    assert rejected == []
    found = count(photos, splits)
    assert found["cat"] == {TRAIN: 80, VALID: 10, TEST: 10}
    assert found["dog"] == {TRAIN: 40, VALID: 5, TEST: 5}


@pytest.mark.parametrize(
    ("photos", "expected"),
    [
        (2, {TRAIN: 1, TEST: 1}),
        (3, {TRAIN: 1, VALID: 1, TEST: 1}),
        (4, {TRAIN: 2, VALID: 1, TEST: 1}),
        (10, {TRAIN: 8, VALID: 1, TEST: 1}),
    ],
)
def test_small_classes(photos: int, expected: dict[Split, int]) -> None:
    everything = photos_of("small", photos) + photos_of("large", 20)
    assert count(everything, assign(everything, {})[0])["small"] == expected


def test_the_order_of_the_photos_does_not_matter_but_the_seed_does() -> None:
    photos = photos_of("cat", 40) + photos_of("dog", 40)
    splits, _ = assign(photos, {}, seed=3)
    shuffled = random.Random(0).sample(photos, len(photos))
    assert assign(shuffled, {}, seed=3)[0] == splits
    assert assign(photos, {}, seed=4)[0] != splits


def test_later_versions_move_nothing() -> None:
    before = photos_of("cat", 40) + photos_of("dog", 40)
    splits, _ = assign(before, {}, seed=0)
    after = before[5:] + photos_of("cat", 33, first=40) + photos_of("bird", 10)
    grown, _ = assign(after, splits, seed=99)
    assert all(grown[photo.sha256] is splits[photo.sha256] for photo in before[5:])
    assert count(after, grown)["bird"] == {TRAIN: 8, VALID: 1, TEST: 1}
    cats = count(after, grown)["cat"]
    assert abs(cats[TEST] - 7) <= 1
    assert abs(cats[VALID] - 7) <= 1


def test_look_alikes_go_together() -> None:
    numbers = random.Random(0)
    photos = []
    for group in range(60):
        base = numbers.getrandbits(64)
        for member in range(2):
            phash = base ^ (1 << numbers.randrange(64)) if member else base
            photos += photos_of("cat" if group % 2 else "dog", 1, first=2 * group + member, phash=phash)
    splits, rejected = assign(photos, {})
    assert rejected == []
    for one, other in zip(photos[::2], photos[1::2], strict=True):
        assert splits[one.sha256] is splits[other.sha256]
    assert all(found[TEST] == 6 for found in count(photos, splits).values())


def test_a_new_photo_joins_the_split_of_its_near_duplicate() -> None:
    old = photos_of("cat", 20) + photos_of("dog", 20)
    known, _ = assign(old, {})
    tested = next(photo for photo in old if known[photo.sha256] is TEST)
    old[old.index(tested)] = Photo(tested.path, tested.label, tested.sha256, 12345, 1000, "jpg")
    twin = photos_of("cat", 1, first=500, phash=12345 ^ 3)
    assert assign(old + twin, known)[0][twin[0].sha256] is TEST


def test_a_photo_that_resembles_two_splits_is_left_out() -> None:
    left, right, middle = 1 << 63, 1 << 63 | 0b11111111_11111111, 1 << 63 | 0b11111111
    old = photos_of("cat", 30) + photos_of("dog", 30)
    known, _ = assign(old, {})
    train = next(index for index, photo in enumerate(old) if known[photo.sha256] is TRAIN)
    test = next(index for index, photo in enumerate(old) if known[photo.sha256] is TEST)
    for index, phash in ((train, left), (test, right)):
        old[index] = Photo(old[index].path, old[index].label, old[index].sha256, phash, 1000, "jpg")
    bridge = photos_of("cat", 1, first=500, phash=middle)
    splits, rejected = assign(old + bridge, known)
    assert [item.path for item in rejected] == ["cat/500.jpg"]
    assert rejected[0].reason == "near-duplicate of photos in test and train"
    assert bridge[0].sha256 not in splits
    assert {sha: splits[sha] for sha in known} == known


def test_bursts_of_look_alikes_still_leave_something_to_test_on() -> None:
    photos = []
    numbers = random.Random(1)
    for burst in range(6):
        phash = numbers.getrandbits(64)
        photos += photos_of("cat", 4, first=4 * burst, phash=phash)
    photos += photos_of("dog", 20)
    found = count(photos, assign(photos, {})[0])["cat"]
    assert found == {TRAIN: 16, VALID: 4, TEST: 4}


def test_a_class_of_one_look_is_refused_with_the_fix() -> None:
    photos = photos_of("cat", 5, phash=77) + photos_of("dog", 20)
    with pytest.raises(DatasetError, match=r"'cat' has no photo for .*add at least 2 different photos"):
        assign(photos, {})


def test_a_set_without_validation_is_refused() -> None:
    with pytest.raises(DatasetError, match="validation"):
        assign(photos_of("cat", 2) + photos_of("dog", 2), {})


@pytest.mark.parametrize("valid", [0.0, 0.95])
def test_fractions_must_leave_something_to_train_on(valid: float) -> None:
    with pytest.raises(ValueError, match="together below 1"):
        Fractions(valid=valid, test=0.1)


def test_near_duplicates_are_those_of_brute_force() -> None:
    numbers = random.Random(2)
    hashes: list[int | None] = [numbers.getrandbits(64) for _ in range(150)] + [None, None]
    for _ in range(100):
        near = hashes[numbers.randrange(150)] or 0
        for _ in range(numbers.randrange(12)):
            near ^= 1 << numbers.randrange(64)
        hashes.append(near)
    expected = {
        (i, j)
        for i, one in enumerate(hashes)
        for j, other in enumerate(hashes[:])
        if i < j and one is not None and other is not None and 0 < (one ^ other).bit_count() <= 8
    }
    found = set(near_duplicates(hashes, 8))
    first = {value: index for index, value in reversed(list(enumerate(hashes)))}
    firsts = {(i, j) for i, j in expected if first[hashes[i]] == i and first[hashes[j]] == j}
    assert firsts <= found
    assert all(((hashes[i] or 0) ^ (hashes[j] or 0)).bit_count() <= 8 for i, j in found)


def test_ten_thousand_equal_hashes_are_no_quadratic_affair() -> None:
    assert len(near_duplicates([5] * 10_000)) <= 10_000 * 17


def test_hundred_thousand_photos_are_compared_with_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    hashes = draw.integers(0, 2**64, 100_000, dtype=np.uint64).tolist()
    for number in range(50):
        for bit in draw.choice(64, 8, replace=False).tolist():
            hashes[number] ^= 1 << bit
        hashes.append(hashes[number])
        hashes[number] ^= 0b1011 << int(draw.integers(60))
    compared = []
    count = np.bitwise_count
    monkeypatch.setattr(np, "bitwise_count", lambda bits: compared.append(bits.size) or count(bits))
    found = set(near_duplicates(hashes))
    assert {(number, 100_000 + number) for number in range(50)} <= found
    assert sum(compared) < 100_000**2 / 2 / 500
