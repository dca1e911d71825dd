"""Each detector on inputs whose right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from model_code.check.classes import FEW, indistinct, small, unlike
from model_code.check.duplicates import close_pairs, verified
from model_code.check.labels import judge
from model_code.check.quality import Fault, faults, look
from tests.model_code.photo_files import encoded, picture


def clusters(
    per_class: int, classes: int, apart: float = 4.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    centres = apart * np.eye(classes, 24)
    labels = np.repeat(np.arange(classes), per_class)
    rows = centres[labels] + draw.normal(size=(len(labels), 24))
    return rows.astype(np.float16), labels


def test_flipped_labels_are_the_suspects_and_the_true_class_is_suggested() -> None:
    rows, truth = clusters(40, 5, apart=8.0)
    labels = truth.copy()
    wrong = np.arange(0, len(labels), 25)
    labels[wrong] = (truth[wrong] + 1) % 5
    judged = judge(rows, labels, 5)
    suspects = judged.suspects()
    assert set(suspects.tolist()) == set(wrong.tolist())
    assert (judged.suggestion[suspects] == truth[suspects]).all()


def test_clean_labels_are_not_suspected() -> None:
    rows, labels = clusters(40, 5, apart=8.0)
    judged = judge(rows, labels, 5)
    assert not len(judged.suspects())
    assert judged.accuracy > 0.98
    assert judged.counts.tolist() == [40] * 5


def test_a_class_of_one_photo_is_not_judged() -> None:
    rows, labels = clusters(20, 3)
    rows, labels = np.concatenate([rows, rows[:1]]), np.append(labels, 3)
    judged = judge(rows, labels, 4)
    assert np.isnan(judged.odds[-1])
    assert len(labels) - 1 not in judged.suspects()


def test_the_same_folds_every_time() -> None:
    rows, labels = clusters(30, 4, apart=2.0)
    assert np.array_equal(judge(rows, labels, 4).odds, judge(rows, labels, 4).odds)


def test_two_classes_of_the_same_photos_cannot_be_told_apart() -> None:
    rows, labels = clusters(60, 3, apart=8.0)
    mixed = labels.copy()
    mixed[(labels == 2) & (np.arange(len(labels)) % 2 == 0)] = 3
    found = indistinct(judge(rows, mixed, 4))
    assert [(pair.left, pair.right) for pair in found] == [(2, 3)]
    assert found[0].accuracy < 0.75


def test_a_photo_far_from_its_class_is_listed_first() -> None:
    rows, labels = clusters(FEW + 10, 3, apart=6.0)
    rows[5] = -rows[5] * 3
    found, oddness = unlike(rows, labels, 3)
    assert found[0] == 5
    assert oddness[5] == oddness.max()


def test_small_classes_are_named_and_not_compared() -> None:
    labels = np.repeat([0, 1, 2], [50, FEW - 1, 3])
    assert small(labels, 3).tolist() == [2, 1]
    _, oddness = unlike(np.random.default_rng(0).normal(size=(len(labels), 8)).astype(np.float16), labels, 3)
    assert not oddness[50:].any()


CHANGES = {
    "re-encoded": lambda image: image,
    "resized": lambda image: image.resize((120, 120)),
    "cropped": lambda image: image.crop((8, 4, 232, 228)),
    "mirrored": ImageOps.mirror,
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
}


@pytest.mark.parametrize("change", CHANGES)
def test_pixels_decide_whether_a_close_pair_is_the_same_picture(change: str) -> None:
    first, other = picture(1, 240, 240), picture(2, 240, 240)
    files = [encoded(first), encoded(CHANGES[change](first), quality=70), encoded(other)]
    pairs = verified([(0, 1, 0.9), (0, 2, 0.9), (1, 2, 0.9)], files.__getitem__)
    assert [(pair.left, pair.right) for pair in pairs] == [(0, 1)]
    assert pairs[0].mirrored is (change == "mirrored")


def test_a_pair_that_cannot_be_read_is_left_out() -> None:
    assert verified([(0, 1, 0.9)], [encoded(picture(1)), b"no photo"].__getitem__) == []
    flat = encoded(Image.new("RGB", (64, 64)))
    assert verified([(0, 1, 0.9)], [flat, flat].__getitem__) == []  # nothing to compare


def test_close_pairs_are_found_and_a_burst_does_not_explode() -> None:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(400, 300)).astype(np.float32)
    rows[7] = rows[300] + 0.1 * draw.normal(size=300)
    rows[100:200] = rows[100] + 0.01 * draw.normal(size=(100, 300))
    pairs = [(left, right) for left, right, _ in close_pairs(rows)]
    assert (7, 300) in pairs
    assert len(pairs) < 600
    assert {at for pair in pairs for at in pair} == {7, 300, *range(100, 200)}


def test_every_fault_is_found_and_an_ordinary_photo_has_none() -> None:
    plain = picture(3, 240, 240).filter(ImageFilter.SHARPEN)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 60, (240, 240, 3), np.uint8))
    sharp = Image.blend(plain, noise.point(lambda value: value * 4), 0.3)
    files = {
        "ordinary": sharp,
        "another": Image.blend(picture(4, 240, 240), noise.point(lambda value: value * 4), 0.3),
        Fault.BLURRED: sharp.filter(ImageFilter.GaussianBlur(4)),
        Fault.DARK: ImageEnhance.Brightness(sharp).enhance(0.3),
        Fault.BRIGHT: sharp.point(lambda value: 160 + value * 95 // 255),
        Fault.LOW_INFORMATION: Image.new("RGB", (240, 240), (120, 90, 60)),
        Fault.ODD_ASPECT: sharp.resize((800, 200)),
        Fault.ODD_SIZE: sharp.resize((40, 40)),
    }
    looks = [look(encoded(image, quality=92)) for image in files.values()]
    names = list(files)
    found = {fault: [names[at] for at in photos] for fault, photos in faults(looks).items()}
    for fault in Fault:
        assert fault in found[fault], (fault, looks[names.index(fault)])
        assert not {"ordinary", "another"} & set(found[fault])


def test_no_photos_no_faults() -> None:
    assert all(len(photos) == 0 for photos in faults([]).values())
