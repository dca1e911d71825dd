"""Look-alikes: hashes propose, pixels confirm."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from model_code.data import duplicates
from model_code.data.photos import perceptual_hash
from model_code.data.records import Photo
from model_code.data.shards import Split
from model_code.data.splits import assign, without_contradictions
from tests.model_code.photo_files import encoded, picture


def hashes_of(files: list[bytes]) -> NDArray[np.uint64]:
    return np.array([perceptual_hash(data) or 0 for data in files], np.uint64)


def pairs_of(files: list[bytes]) -> list[list[int]]:
    pairs: list[list[int]] = duplicates.same_pictures(hashes_of(files), files.__getitem__).tolist()
    return pairs


@pytest.mark.parametrize("seed", range(4))
def test_copies_of_a_picture_are_found(seed: int) -> None:
    image = picture(seed, 240, 200)
    files = [
        encoded(image, quality=95),
        encoded(image, quality=50),
        encoded(image.resize((226, 188)), quality=75),
        encoded(image.resize((120, 100), Image.Resampling.LANCZOS), quality=90),
        encoded(image, "PNG"),
        encoded(picture(seed + 50, 240, 200)),
    ]
    found = pairs_of(files)
    assert {index for pair in found for index in pair} == {0, 1, 2, 3, 4}
    assert all(5 not in pair for pair in found)


def part(scratched: bool, seed: str) -> bytes:
    """A machine part before a fixed camera: the same scene with noise, a shift of a pixel, and perhaps a scratch."""
    draw = random.Random(seed)
    image = Image.new("RGB", (320, 240), (70, 72, 75))
    canvas = ImageDraw.Draw(image)
    canvas.rectangle([0, 170, 320, 240], fill=(120, 110, 95))
    canvas.rectangle([262, 20, 300, 150], fill=(150, 150, 40))
    x, y = draw.randint(-1, 1), draw.randint(-1, 1)
    canvas.ellipse([90 + x, 40 + y, 210 + x, 160 + y], fill=(190, 190, 195), outline=(40, 40, 40), width=3)
    canvas.rectangle([170 + x, 120 + y, 250 + x, 200 + y], fill=(160, 60, 50))
    if scratched:
        a, b = draw.randrange(110, 190), draw.randrange(60, 130)
        canvas.line([a, b, a + draw.randrange(8, 25), b + draw.randrange(-8, 8)], fill=(30, 30, 200), width=3)
    noise = np.random.default_rng(draw.randrange(2**31)).normal(draw.uniform(-3, 3), 3, (240, 320, 1))
    return encoded(Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)), quality=88)


def test_photos_of_a_fixed_camera_are_different_pictures() -> None:
    files = {f"good/{n}": part(False, f"g{n}") for n in range(60)}
    files |= {f"scratch/{n}": part(True, f"s{n}") for n in range(40)}
    photos = [
        Photo(path, path.split("/")[0], f"{n:064x}", perceptual_hash(data), len(data), "jpg")
        for n, (path, data) in enumerate(files.items())
    ]
    data = list(files.values())
    pairs = duplicates.same_pictures(hashes_of(data), data.__getitem__)
    assert without_contradictions(photos, pairs) == (set(), [])
    splits, rejected = assign(photos, {}, pairs=pairs)
    counts = Counter((item.label, splits[item.sha256]) for item in photos)
    assert rejected == []
    for label, size in (("good", 60), ("scratch", 40)):
        assert abs(counts[label, Split.TEST] - size / 10) <= 5
        assert abs(counts[label, Split.VALID] - size / 10) <= 5


def test_classes_that_differ_by_color_are_different_pictures() -> None:
    grey = picture(3, 200, 160).convert("L")
    colors = {"red": (255, 90, 90), "blue": (90, 90, 255)}
    tinted = [
        Image.merge("RGB", [grey.point(lambda v, k=k: v * k // 255) for k in c]) for c in colors.values()
    ]
    assert duplicates.near_duplicates(hashes_of([encoded(image) for image in tinted])).tolist() == [[0, 1]]
    assert pairs_of([encoded(image) for image in tinted]) == []


def test_a_picture_in_two_classes_is_named_by_both_files() -> None:
    image = picture(7, 160, 160)
    files = {
        "circle/one.jpg": encoded(image),
        "square/two.jpg": encoded(image.resize((150, 150)), quality=60),
    }
    photos = [
        Photo(path, path.split("/")[0], f"{n:064x}", perceptual_hash(data), len(data), "jpg")
        for n, (path, data) in enumerate(files.items())
    ]
    out, rejected = without_contradictions(photos, np.array(pairs_of(list(files.values()))))
    assert out == {0, 1}
    assert {item.path for item in rejected} == set(files)
    assert "two.jpg, in 2 classes (circle, square)" in rejected[0].reason


def test_only_pairs_that_matter_are_read() -> None:
    data = encoded(picture(1, 100, 100))
    read: list[int] = []

    def reading(index: int) -> bytes:
        read.append(index)
        return data

    found = duplicates.same_pictures(np.array([5, 5, 5], np.uint64), reading, wanted=np.zeros(3, bool))
    assert (len(found), read) == (0, [])
    assert duplicates.same_pictures(np.array([5, 5, 0], np.uint64), reading).tolist() == [[0, 1]]
    assert sorted(read) == [0, 1]


def test_a_dense_set_is_not_quadratic() -> None:
    draw = random.Random(0)
    hashes = [draw.getrandbits(64) & 0xFF for _ in range(3000)]
    assert len(duplicates.near_duplicates(np.array(hashes, np.uint64))) < 3000 * 20


def test_a_dense_part_of_a_set_hides_no_copies_in_the_rest() -> None:
    draw = random.Random(0)
    dense = [draw.getrandbits(16) for _ in range(20_000)]
    first = [draw.getrandbits(64) for _ in range(30)]
    copies = [one ^ sum(1 << bit for bit in draw.sample(range(64), 7)) for one in first]
    hashes = np.array([*dense, *first, *copies], np.uint64)
    found = set(map(tuple, duplicates.near_duplicates(hashes).tolist()))
    start = len(dense)
    assert {(start + n, start + len(first) + n) for n in range(len(first))} <= found


def test_neighbors_are_the_pairs_from_both_sides() -> None:
    neighbors = duplicates.Neighbors(np.array([[0, 2], [0, 3], [2, 3]], np.int32), 5)
    assert [neighbors.of(index) for index in range(5)] == [[2, 3], [], [0, 3], [0, 2], []]
    assert neighbors.any.tolist() == [True, False, True, True, False]


def test_new_photos_of_a_fixed_camera_have_the_pairs_that_they_have_in_a_first_look() -> None:
    files = [part(False, f"g{n}") for n in range(40)]
    hashes, wanted = hashes_of(files), np.arange(len(files)) >= 35
    every = duplicates.same_pictures(hashes, files.__getitem__)
    expected = every[wanted[every].any(1)].tolist()
    assert 0 < len(expected) < 10
    assert duplicates.same_pictures(hashes, files.__getitem__, wanted).tolist() == expected


def test_a_large_set_of_a_fixed_camera_is_as_crowded_as_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large to compare each photo with each: many have equal hashes, and are different pictures all the same."""
    monkeypatch.setattr(duplicates, "_FEW_COMPARISONS", 0)
    files = [part(False, f"g{n}") for n in range(60)]
    assert len(set(hashes_of(files).tolist())) < 10
    assert len(duplicates.same_pictures(hashes_of(files), files.__getitem__)) < len(files) / 2
