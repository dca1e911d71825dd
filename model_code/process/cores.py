"""This process's share of the machine's cores, for training, embedding and serving."""

from __future__ import annotations

import os


def cores() -> int:
    """Return the cores this process may use: SM_NUM_CPUS, else OMP_NUM_THREADS, else what it is bound to.

    torchrun's processes on one machine share its cores. For several it sets OMP_NUM_THREADS to 1, which limits
    torch, not the number of cores for decoding.
    """
    ranks = _positive("LOCAL_WORLD_SIZE") or 1
    given = _positive("SM_NUM_CPUS") or (_positive("OMP_NUM_THREADS") if ranks == 1 else 0)
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, (given or bound) // ranks)


def _positive(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdigit() else 0
