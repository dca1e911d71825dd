"""Accuracy without labels, against the truth that a test knows."""

import numpy as np
import pytest

from model_code.watch.estimate import Basis, estimate, per_class, true_accuracy


def answers(count: int, seed: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities: each label is drawn from its own row."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, 5)) * sharpness
    rows = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return rows, np.array([generator.choice(5, p=row) for row in rows])


@pytest.fixture(scope="module")
def basis() -> Basis:
    probabilities, labels = answers(1500, 0, 4)
    pairs = []
    for sharpness in (4, 2, 1, 0.5):
        rows, truth = answers(1500, 1, sharpness)
        pairs.append((rows.max(axis=1).mean(), (rows.argmax(axis=1) == truth).mean()))
    return Basis(probabilities, labels, np.array(pairs))


@pytest.mark.parametrize("sharpness", [0.7, 1.5, 3.0, 5.0])
def test_the_interval_holds_the_truth(basis, sharpness) -> None:
    rows, labels = answers(4000, 2, sharpness)
    truth = (rows.argmax(axis=1) == labels).mean()
    found = estimate(basis, rows[:500])
    assert found.low <= truth <= found.high
    assert abs(found.accuracy - truth) < 0.05
    assert found.photos == 500


def test_fewer_photos_say_less(basis) -> None:
    rows, _ = answers(1000, 3, 2)
    few, many = estimate(basis, rows[:20]), estimate(basis, rows)
    assert few.high - few.low > many.high - many.low


def test_only_classes_with_enough_photos_are_estimated(basis) -> None:
    rows, _ = answers(60, 4, 3)
    counts = np.bincount(rows.argmax(axis=1), minlength=5)
    assert set(per_class(basis, rows)) == set(np.flatnonzero(counts >= 20).tolist())


def test_true_accuracy_has_wilsons_interval() -> None:
    assert true_accuracy(0, 0) is None
    found = true_accuracy(45, 50)
    assert (round(found.low, 3), round(found.high, 3)) == (0.786, 0.957)
    assert true_accuracy(50, 50).high == pytest.approx(1.0)
