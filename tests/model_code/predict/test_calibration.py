import numpy as np
import pytest

from model_code.predict.calibration import (
    Calibration,
    calibrate,
    fit_temperature,
    fit_threshold,
    log_loss,
    probabilities,
)


def overconfident(photos: int = 4000, factor: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose true probabilities are softmax(logits / factor)."""
    draw = np.random.default_rng(0)
    honest = draw.normal(size=(photos, 5)) * 1.5
    labels = np.array([draw.choice(5, p=row) for row in probabilities(honest)])
    return factor * honest, labels


def test_temperature_undoes_overconfidence() -> None:
    logits, labels = overconfident()
    assert fit_temperature(logits, labels) == pytest.approx(3.0, rel=0.1)


def test_temperature_is_the_minimum() -> None:
    logits, labels = overconfident(500)
    best = fit_temperature(logits, labels)
    for other in (0.9 * best, 1.1 * best, 1.0):
        assert log_loss(logits, labels, best) <= log_loss(logits, labels, other)


def test_photos_that_are_all_right_do_not_make_every_answer_certain() -> None:
    logits, labels = np.eye(3).repeat(20, axis=0), np.arange(3).repeat(20)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(0.25, rel=1e-3)
    assert 0.9 < probabilities(logits, temperature).max() < 0.99


def test_temperature_keeps_the_answers() -> None:
    logits, labels = overconfident(200)
    calibration = calibrate(logits, labels)
    assert (probabilities(logits, calibration.temperature).argmax(1) == logits.argmax(1)).all()


def test_answers_above_the_threshold_reach_the_target() -> None:
    logits, labels = overconfident()
    probability = probabilities(logits, 3.0)
    threshold = fit_threshold(probability, labels, target=0.8)
    answered = probability.max(1) >= threshold
    assert (probability.argmax(1) == labels)[answered].mean() >= 0.8
    assert 0 < answered.mean() < 1


def test_nothing_is_held_back_where_all_is_right() -> None:
    probability = np.array([[0.6, 0.4], [0.3, 0.7]])
    assert fit_threshold(probability, np.array([0, 1])) == 0.0


def test_an_unreachable_target_still_answers_some() -> None:
    probability = probabilities(np.random.default_rng(0).normal(size=(1000, 2)))
    threshold = fit_threshold(probability, np.random.default_rng(1).integers(0, 2, 1000), target=0.99)
    assert (probability.max(1) >= threshold).mean() >= 0.1


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype=np.float32)
    calibration = calibrate(logits, np.array([0, 1]))
    assert np.isfinite(probabilities(logits, calibration.temperature)).all()


def test_no_photos_give_no_calibration() -> None:
    assert calibrate(np.empty((0, 3)), np.empty(0, dtype=np.int64)) == Calibration(1.0, 0.0)


def test_a_calibration_checks_itself() -> None:
    with pytest.raises(ValueError, match="temperature"):
        Calibration(0.0)
    with pytest.raises(ValueError, match="abstain_threshold"):
        Calibration(1.0, 2.0)
