"""Windows against the reference: calibrated without a change, certain with one."""

import numpy as np
import pytest

from model_code.watch.bursts import Bursts
from model_code.watch.drift import ALARMING, Drift, Photos, smallest
from model_code.watch.two_sample import Block, permutation_tests

CLASSES = 6


def photos(count: int, seed: int, *, shift: float = 0.0, classes: int = CLASSES, dark: float = 0.0) -> Photos:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    means = np.random.default_rng(99).normal(size=(CLASSES, 16)) * 2
    embeddings = means[labels] + generator.normal(size=(count, 16)) + shift
    logits = embeddings @ means.T / 4
    logits -= logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    looks = generator.normal(size=(count, 3)) - dark
    return Photos(embeddings, probabilities, looks, np.empty((count, 0)))


@pytest.fixture(scope="module")
def drift() -> Drift:
    return Drift(photos(400, 0))


def test_values_are_uniform_where_nothing_changed(drift) -> None:
    values = [drift.test(photos(60, seed), 0.2, seed) for seed in range(1, 61)]
    for name in ALARMING:
        below = np.mean([result[name].p <= 0.1 for result in values])
        assert below < 0.25, name
    assert np.mean([smallest(result) <= 0.05 for result in values]) < 0.15


@pytest.mark.parametrize(
    ("change", "test"),
    [({"shift": 1.0}, "embedding"), ({"classes": 2}, "classes"), ({"dark": 1.5}, "photo")],
)
def test_each_change_is_seen_by_its_test(drift, change, test) -> None:
    result = drift.test(photos(80, 5, **change), 0.01)
    assert result[test].p <= 0.01 / len(ALARMING)
    assert smallest(result) <= 0.01
    assert result[test].statistic > 2


def test_the_same_seed_draws_the_same(drift) -> None:
    window = photos(40, 3)
    assert drift.test(window, 0.1, 7) == drift.test(window, 0.1, 7)


def test_a_value_is_never_zero_and_a_quiet_window_costs_few_draws(drift) -> None:
    loud = drift.test(photos(80, 5, shift=5), 0.01)["embedding"]
    assert 0 < loud.p <= 0.002 / 2
    assert loud.permutations == 1000
    quiet = Block(np.zeros((50, 1), np.float32), np.zeros((10, 1), np.float32), np.ones(1, np.float32))
    result = permutation_tests({"same": quiet}, 0.01)["same"]
    assert (result.p, result.permutations) == (1.0, 10)


def test_a_window_of_one_photo_is_tested_all_the_same(drift) -> None:
    assert 0 < smallest(drift.test(photos(1, 3), 0.05)) <= 1


def test_blocks_of_other_photos_are_refused() -> None:
    rows = np.zeros((3, 1), np.float32)
    with pytest.raises(ValueError, match="at least one on each side"):
        permutation_tests({"empty": Block(rows, rows[:0], np.ones(1, np.float32))}, 0.1)


def test_a_burst_counts_once(drift) -> None:
    reference = np.random.default_rng(0).normal(size=(300, 16))
    singles = np.random.default_rng(1).normal(size=(20, 16))
    burst = singles[4] + 0.02 * np.random.default_rng(2).normal(size=(15, 16))
    kept = Bursts(reference).first_of_each(np.concatenate([singles, burst]))
    assert kept.tolist() == list(range(20))


def test_a_source_that_comes_back_counts_once() -> None:
    generator = np.random.default_rng(0)
    reference, window = generator.normal(size=(300, 16)), generator.normal(size=(200, 16))
    for start in (20, 90, 150):  # three bursts of one source, in half of the window's stretches
        window[start : start + 14] = window[20] + 0.02 * generator.normal(size=(14, 16))
    kept = Bursts(reference).first_of_each(window)
    assert [row for row in kept.tolist() if 20 <= row < 34 or 90 <= row < 104 or 150 <= row < 164] == [20]


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_photos_of_a_camera_that_fails_now_and_then_all_count(share: float) -> None:
    generator = np.random.default_rng(0)
    reference, window = generator.normal(size=(300, 16)), generator.normal(size=(200, 16))
    black = generator.choice(200, int(200 * share), replace=False)
    window[black] = 1 + 1e-3 * generator.normal(size=(len(black), 16))
    kept = Bursts(reference).first_of_each(window)
    assert len(np.intersect1d(kept, black)) >= 0.9 * len(black)


def test_a_camera_that_fails_is_not_one_burst() -> None:
    reference = np.random.default_rng(0).normal(size=(300, 16))
    black = np.ones(16) + 1e-3 * np.random.default_rng(1).normal(size=(80, 16))
    assert len(Bursts(reference).first_of_each(black)) > 40
