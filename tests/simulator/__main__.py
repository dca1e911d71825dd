"""Run schedules from the command line: `python -m tests.simulator FIRST [COUNT]`; one alone prints its journal."""

from __future__ import annotations

import logging
import sys
import time

import pytest
import structlog

from tests.simulator.simulation import simulate


def main() -> None:
    """Exit with 1 if a schedule broke an invariant."""
    first, count = int(sys.argv[1]), int((*sys.argv[2:], "1")[0])
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    patch, broken, started = pytest.MonkeyPatch(), 0, time.process_time()
    for number in range(1, count + 1):
        seed = first + number - 1
        with patch.context() as inner:
            outcome = simulate(seed, inner)
        if count == 1:
            print("\n".join(outcome.journal))
        for line in outcome.broken:
            print(f"seed {seed}: {line}", flush=True)
        broken += bool(outcome.broken)
        if number % 1000 == 0 or number == count:
            rate = number / (time.process_time() - started)
            print(f"{number} schedules, {broken} broken, {rate:.1f} per second of CPU", flush=True)
    sys.exit(broken > 0)


if __name__ == "__main__":
    main()
