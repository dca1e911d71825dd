"""Permutation tests of a window of photos against the reference: several statistics, one set of permutations.

Each statistic is a function of a sum over the photos of the window: with rows [n + m, f] of any features, the test asks
how far the window's mean is from the mean of both. Photos of the same distribution are exchangeable, so a random
subset of n rows is as likely as the window itself, and the share of subsets at least as far is a p-value that holds for
any n, m and features. See Gretton et al. 2012 (JMLR 13) for the kernel statistic, which these sums approximate by
random features (Rahimi & Recht 2007).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

_FEWEST, _MOST = 32, 128
"""Permutations drawn together: few at first, since a quiet window stops early, then enough for BLAS."""


@dataclass(frozen=True)
class Block:
    """Features of one statistic.

    Args:
        reference: [m, f].
        window: [n, f].
        scale: Divides the difference of the means per feature, [f]; a feature of a small expected count weighs as
            much as one of a large count.
    """

    reference: Rows
    window: Rows
    scale: Rows

    def __post_init__(self) -> None:
        if self.reference.shape[1] != self.window.shape[1] or self.scale.shape != (self.window.shape[1],):
            raise ValueError(
                f"features of a block differ: reference {self.reference.shape}, window {self.window.shape}, "
                f"scale {self.scale.shape}"
            )


@dataclass(frozen=True)
class Result:
    """One statistic.

    Args:
        p: p-value in (0, 1]; under no change, at most the share p of windows has a value so small.
        statistic: Squared distance of the window's mean, in units of its mean under permutation (1: as expected).
        permutations: Drawn until the value was known.
    """

    p: float
    statistic: float
    permutations: int


def permutation_tests(
    blocks: Mapping[str, Block], level: float, seed: int = 0, exceedances: int = 10
) -> dict[str, Result]:
    """Test every block with the same permutations.

    Drawing stops for a block when `exceedances` permutations were at least as far as the window (Besag & Clifford
    1991: the value stays valid, and a window without a change costs few draws), and at the latest when a value of half
    of `level` could have been seen.

    Args:
        blocks: Features of the same photos by name, each with its reference.
        level: The smallest level at which a value is compared; decides how many permutations are drawn at most.
        seed: Draws the permutations.
        exceedances: Permutations at least as far as the window after which a block is settled.

    Raises:
        ValueError: A block has no photos, or blocks of different photos.
    """
    sizes = {(len(block.reference), len(block.window)) for block in blocks.values()}
    if len(sizes) != 1 or 0 in next(iter(sizes)):
        raise ValueError(f"blocks need the same photos, at least one on each side, not {sorted(sizes)}")
    _, n = next(iter(sizes))
    most = int(np.ceil(2 / level))
    running = {name: _Running.of(block) for name, block in blocks.items()}
    generator = np.random.default_rng(seed)
    drawn, rows, open_blocks = 0, np.empty((0, 0), np.float32), list(running.values())
    while drawn < most and open_blocks:
        edges = np.cumsum([0, *(block.rows.shape[1] for block in open_blocks)])
        if rows.shape[1] != edges[-1]:  # blocks that are settled cost no more
            rows = np.concatenate([block.rows for block in open_blocks], axis=1)
        count = min(max(_FEWEST, min(drawn, _MOST)), most - drawn)
        sums = _subset_sums(rows, n, count, generator)
        drawn += count
        for block, left, right in zip(open_blocks, edges, edges[1:], strict=False):
            block.add(sums[:, left:right], exceedances)
        open_blocks = [block for block in open_blocks if block.exceeded < exceedances]
    return {name: block.result(exceedances) for name, block in running.items()}


@dataclass
class _Running:
    rows: Rows
    observed: float
    exceeded: int = 0
    drawn: int = 0
    total: float = 0.0

    @classmethod
    def of(cls, block: Block) -> _Running:
        rows = np.concatenate([block.reference, block.window]).astype(np.float32)
        rows -= rows.mean(axis=0)
        rows /= block.scale
        observed = rows[len(block.reference) :].sum(axis=0, dtype=np.float64)
        return cls(rows, float(observed @ observed))

    def add(self, sums: Rows, exceedances: int) -> None:
        distances = np.einsum("ij,ij->i", sums, sums, dtype=np.float64)
        # Sums in another order differ in the last digits; a tie counts as an exceedance.
        beyond = distances >= self.observed * (1 - 1e-6)
        reached = np.cumsum(beyond) + self.exceeded >= exceedances
        stop = int(np.argmax(reached)) + 1 if reached.any() else len(distances)
        self.exceeded += int(beyond[:stop].sum())
        self.drawn += stop
        self.total += float(distances[:stop].sum())

    def result(self, exceedances: int) -> Result:
        stopped = self.exceeded >= exceedances
        p = self.exceeded / self.drawn if stopped else (self.exceeded + 1) / (self.drawn + 1)
        mean = self.total / max(self.drawn, 1)
        return Result(min(p, 1.0), self.observed / mean if mean > 0 else 1.0, self.drawn)


def _subset_sums(rows: Rows, n: int, count: int, generator: np.random.Generator) -> Rows:
    """Sums over `count` random subsets of n rows, [count, f]."""
    chosen = np.zeros((count, len(rows)), np.float32)
    order = generator.random((count, len(rows)), np.float32)
    picked = np.argpartition(order, n - 1, axis=1)[:, :n]
    np.put_along_axis(chosen, picked, 1.0, axis=1)
    return np.asarray(chosen @ rows, np.float32)
