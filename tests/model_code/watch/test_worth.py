"""Choice of the photos that are worth a person's time."""

import numpy as np

from model_code.watch.worth import choose, doubt


def test_doubt_is_large_between_two_classes() -> None:
    rows = np.array([[0.98, 0.01, 0.01], [0.5, 0.49, 0.01], [0.34, 0.33, 0.33]])
    assert np.argsort(doubt(rows)).tolist() == [0, 1, 2]


def test_ten_photos_of_one_scene_do_not_take_ten_places() -> None:
    generator = np.random.default_rng(0)
    scene = generator.normal(size=8) + 0.01 * generator.normal(size=(10, 8))
    others = generator.normal(size=(10, 8))
    worth = np.concatenate([np.full(10, 0.9), np.full(10, 0.8)])
    chosen = choose(worth, np.concatenate([scene, others]), 6)
    assert sum(row < 10 for row in chosen.tolist()) <= 2
    assert len(set(chosen.tolist())) == 6


def test_fewer_photos_than_wanted() -> None:
    assert sorted(choose(np.array([0.1, 0.2]), np.eye(2), 9).tolist()) == [0, 1]
