"""The score of unknown photos, and sets of classes that hold the truth."""

import numpy as np
import pytest

from model_code.predict.calibration import probabilities
from model_code.predict.unknown import (
    FLAGGED,
    UNKNOWN,
    conformal_sets,
    fit_conformal,
    fit_unknown,
    load,
    save,
)

CLASSES, DIM = 12, 24


def logits(labels: np.ndarray, seed: int) -> np.ndarray:
    """Of a nearest-mean classifier that knows the first 12 of 16 classes."""
    means = np.random.default_rng(0).normal(size=(CLASSES + 4, DIM)) * 0.6
    photos = means[labels] + np.random.default_rng(seed).normal(size=(len(labels), DIM))
    return photos @ means[:CLASSES].T - 0.5 * (means[:CLASSES] ** 2).sum(axis=1)


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(CLASSES), 40)
    return probabilities(logits(labels, 1)), labels


def test_classes_never_taught_score_above_known_ones(held_out) -> None:
    score = fit_unknown(*held_out)
    known = score.score(probabilities(logits(np.repeat(np.arange(CLASSES), 30), 2)))
    new = score.score(probabilities(logits(np.repeat(np.arange(CLASSES, CLASSES + 4), 90), 3)))
    above = (new[:, None] > known[None]).mean()
    assert above > 0.8
    assert score.flags(new).mean() > 4 * score.flags(known).mean()


def test_the_score_of_known_photos_is_uniform_and_few_are_flagged(held_out) -> None:
    score = fit_unknown(*held_out)
    known = score.score(probabilities(logits(np.repeat(np.arange(CLASSES), 200), 4)))
    assert 0.4 < known.mean() < 0.6
    assert score.flags(known).mean() == pytest.approx(1 - FLAGGED, abs=0.03)


def test_a_saved_score_is_the_same(held_out, tmp_path) -> None:
    score = fit_unknown(*held_out)
    save(score, tmp_path / UNKNOWN)
    again = load(tmp_path / UNKNOWN)
    assert np.array_equal(score.score(held_out[0]), again.score(held_out[0]))
    assert again.least == pytest.approx(score.least)


def test_a_bundle_of_an_older_release_has_none(tmp_path) -> None:
    assert load(tmp_path / UNKNOWN) is None


def test_a_damaged_file_is_named(tmp_path) -> None:
    (tmp_path / UNKNOWN).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"unknown\.safetensors is damaged"):
        load(tmp_path / UNKNOWN)


def test_too_few_photos_or_classes_have_no_score() -> None:
    assert fit_unknown(np.full((100, 2), 0.5), np.zeros(100, int)) is None
    assert fit_unknown(np.full((10, 3), 1 / 3), np.zeros(10, int)) is None


def test_a_class_without_held_out_photos_does_no_harm() -> None:
    labels = np.repeat(np.arange(CLASSES - 1), 40)
    score = fit_unknown(probabilities(logits(labels, 1)), labels)
    assert np.isfinite(score.score(probabilities(logits(np.arange(CLASSES), 5)))).all()


def test_sets_hold_the_true_class_as_often_as_promised(held_out) -> None:
    least = fit_conformal(*held_out)
    labels = np.repeat(np.arange(CLASSES), 300)
    sets = conformal_sets(probabilities(logits(labels, 6)), least)
    assert 0.86 < sets[np.arange(len(labels)), labels].mean() < 0.95
    assert sets.any(axis=1).all()


def test_nine_photos_are_too_few_for_ninety_percent() -> None:
    assert fit_conformal(np.full((8, 2), 0.5), np.zeros(8, int)) is None
