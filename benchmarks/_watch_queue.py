"""Accuracy gained by 200 reviewed photos after a change of camera (blur): the queue's choice against random ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks._watch_model import World, discriminant, draw
from model_code.watch.worth import choose, doubt

SHIFT, PHOTOS = "blur", 200
_STEPS = (0, 200, 400, 800)


def queue_gain(world: World, seed: int) -> dict[str, float]:
    """Accuracy on blurred photos without a review, after training with 200 chosen and with random ones.

    Returns:
        "chosen", "random" (200 of them), and "equivalent": how many random ones give the accuracy of those chosen.
    """
    model, generator = draw(world, seed), np.random.default_rng([seed, 4])
    order = generator.permutation(model.traffic)
    pool, test = order[: len(order) // 2], order[len(order) // 2 :]
    away = np.concatenate([model.traffic, model.reference])
    train = np.setdiff1d(np.arange(len(world.labels)), away)
    clean, blurred = world.shifts["none"].rows[train], model.photos(test, SHIFT).embeddings

    def accuracy(reviewed: NDArray[np.int64]) -> float:
        rows = np.concatenate([clean, model.photos(reviewed, SHIFT).embeddings])
        weights, bias = discriminant(rows, world.labels[np.concatenate([train, reviewed])])
        return float(((blurred @ weights + bias).argmax(axis=1) == world.labels[test]).mean())

    seen = model.photos(pool, SHIFT)
    chosen = accuracy(pool[choose(doubt(seen.probabilities), seen.embeddings, PHOTOS)])
    shuffled = generator.permutation(pool)
    steps = np.maximum.accumulate([accuracy(shuffled[:count]) for count in _STEPS])
    equivalent = float(np.interp(chosen, steps, _STEPS))
    return {"chosen": chosen, "random": float(steps[1]), "equivalent": equivalent}
