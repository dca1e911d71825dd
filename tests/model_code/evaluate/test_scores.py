"""Metrics against hand-made cases and against scikit-learn's definitions written out."""

from __future__ import annotations

import numpy as np
import pytest

from model_code.evaluate import scores
from model_code.evaluate.scores import UNKNOWN, Outcomes


def outcomes_of(labels: list[int], predictions: list[int], classes: int, sure: float = 3.0) -> Outcomes:
    logits = np.zeros((len(labels), classes), np.float32)
    logits[np.arange(len(labels)), predictions] = sure
    return Outcomes.of(logits, np.array(labels, np.int64), 1.0)


def test_confusion_and_class_scores_by_hand() -> None:
    outcomes = outcomes_of([0, 0, 0, 1, 1, 2, UNKNOWN], [0, 0, 1, 1, 2, 2, 2], 3)
    matrix = scores.confusion(outcomes, 3)
    assert matrix.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 1]]
    result = scores.class_scores(matrix)
    assert result.photos.tolist() == [3, 2, 1]
    assert result.precision == pytest.approx([1, 1 / 2, 1 / 3])  # the unknown photo was called class 2
    assert result.recall == pytest.approx([2 / 3, 1 / 2, 1])
    assert result.f1 == pytest.approx([0.8, 0.5, 0.5])
    assert result.macro(result.f1) == pytest.approx(0.6)
    assert result.weighted(result.recall) == pytest.approx(4 / 6)
    assert outcomes.hits.mean() == pytest.approx(4 / 7)


def test_class_never_predicted_and_class_without_photos() -> None:
    result = scores.class_scores(scores.confusion(outcomes_of([0, 0], [1, 1], 3), 3))
    assert result.precision.tolist() == [0, 0, 0]
    assert result.recall.tolist() == [0, 0, 0]
    assert result.macro(result.recall) == 0  # over class 0 alone


def test_top_five_counts_the_true_class_among_the_likeliest() -> None:
    logits = np.tile(np.arange(10, dtype=np.float32), (3, 1))
    outcomes = Outcomes.of(logits, np.array([9, 5, 4], np.int64), 1.0)
    assert outcomes.in_top.tolist() == [True, True, False]
    assert outcomes.hits.tolist() == [True, False, False]


def test_temperature_changes_confidence_but_no_prediction() -> None:
    logits = np.array([[2.0, 0.0]], np.float32)
    hot, plain = (Outcomes.of(logits, np.array([0]), temperature) for temperature in (4.0, 1.0))
    assert hot.confidence[0] == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert hot.raw_confidence[0] == plain.confidence[0]
    assert hot.predictions.tolist() == plain.predictions.tolist()


def test_log_loss_ignores_unknown_classes() -> None:
    outcomes = outcomes_of([0, UNKNOWN], [0, 0], 2)
    assert outcomes.log_loss() == pytest.approx(-np.log(outcomes.confidence[0]))
    assert np.isnan(outcomes_of([UNKNOWN], [0], 2).log_loss())


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.3])
    hits = np.array([True, True, False, False, True])
    bins = scores.reliability(confidence, hits, bins=10)
    assert [part.photos for part in bins] == [0, 0, 1, 0, 0, 0, 0, 0, 4, 0]
    assert scores.calibration_error(bins) == pytest.approx((4 * 0.4 + 0.7) / 5)


def test_confidence_of_exactly_one_and_zero_have_a_bin() -> None:
    bins = scores.reliability(np.array([0.0, 1.0]), np.array([False, True]))
    assert bins[0].photos == bins[-1].photos == 1


def test_most_confused_is_ordered_and_leaves_out_right_answers() -> None:
    matrix = np.array([[9, 2, 0], [5, 1, 0], [0, 0, 7], [0, 3, 0]])
    assert scores.most_confused(matrix, 5) == [(1, 0, 5), (0, 1, 2)]


def test_accuracy_interval_agrees_with_the_normal_approximation() -> None:
    hits = np.arange(2000) < 1500
    interval = scores.accuracy_interval(hits)
    sigma = np.sqrt(0.75 * 0.25 / 2000)
    assert interval.deviation == pytest.approx(sigma, rel=0.03)
    assert interval.low == pytest.approx(0.75 - 1.96 * sigma, abs=0.002)
    assert interval.high == pytest.approx(0.75 + 1.96 * sigma, abs=0.002)


def test_accuracy_interval_is_never_certain() -> None:
    # Wilson's, as of scipy.stats.binomtest(20, 20).proportion_ci(method="wilson").
    right, wrong = (scores.accuracy_interval(np.full(20, hit)) for hit in (True, False))
    assert (right.low, right.high) == pytest.approx((0.838875, 1))
    assert (wrong.low, wrong.high) == pytest.approx((0, 0.161125))


def test_models_that_never_differ_are_not_shown_to_be_the_same() -> None:
    same = np.arange(100) < 90
    difference = scores.paired_difference(same, same)
    assert difference.mean == 0
    # Bonett and Price: 1 photo added to either side, so 1.96 * sqrt(2 / 102 / 102).
    assert (difference.interval.low, difference.interval.high) == pytest.approx((-0.02717, 0.02717), abs=1e-5)
    opposite = scores.paired_difference(np.full(50, True), np.full(50, False))
    assert opposite.mean == 1
    assert 0.8 < opposite.interval.low < opposite.interval.high == 1


def test_models_that_know_no_class_of_the_photos_score_nothing() -> None:
    outcomes = outcomes_of([UNKNOWN] * 4, [0, 1, 1, 1], 2)
    matrix = scores.confusion(outcomes, 2)
    result = scores.class_scores(matrix)
    assert result.macro(result.f1) == result.weighted(result.recall) == 0
    assert scores.macro_f1_interval(matrix) == scores.Interval(0, 0, 0)


def test_macro_f1_interval_where_few_photos_are_of_known_classes() -> None:
    outcomes = outcomes_of([0, UNKNOWN, UNKNOWN, UNKNOWN], [0, 0, 1, 1], 2)
    interval = scores.macro_f1_interval(scores.confusion(outcomes, 2))
    assert 0 < interval.low < interval.high <= 1


def test_macro_f1_interval_matches_resampling_photos() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 4, 400)
    predictions = np.where(generator.random(400) < 0.7, labels, generator.integers(0, 4, 400))
    outcomes = outcomes_of(labels.tolist(), predictions.tolist(), 4)
    interval = scores.macro_f1_interval(scores.confusion(outcomes, 4))
    drawn = []
    for _ in range(800):
        at = generator.integers(0, 400, 400)
        resampled = scores.class_scores(
            scores.confusion(outcomes_of(labels[at].tolist(), predictions[at].tolist(), 4), 4)
        )
        drawn.append(resampled.macro(resampled.f1))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.01)
    assert interval.high == pytest.approx(high, abs=0.01)


def test_paired_difference_is_narrower_than_two_separate_intervals() -> None:
    generator = np.random.default_rng(0)
    champion = generator.random(1000) < 0.8
    challenger = champion | (generator.random(1000) < 0.1)
    difference = scores.paired_difference(challenger, champion)
    assert difference.mean == pytest.approx(challenger.mean() - champion.mean())
    assert 0 < difference.interval.low < difference.mean < difference.interval.high
    apart = scores.accuracy_interval(challenger).deviation + scores.accuracy_interval(champion).deviation
    assert difference.interval.deviation < apart / 2


def test_no_photo_in_common_is_an_error_that_says_what_to_do() -> None:
    empty = np.zeros(0, bool)
    with pytest.raises(ValueError, match="same test split"):
        scores.paired_difference(empty, empty)


def test_join_keeps_order() -> None:
    whole = outcomes_of([0, 1, 2], [0, 1, 1], 3)
    parts = [outcomes_of([0], [0], 3), outcomes_of([1, 2], [1, 1], 3)]
    assert Outcomes.join(parts).predictions.tolist() == whole.predictions.tolist()
