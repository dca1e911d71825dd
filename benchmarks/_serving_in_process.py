"""The work of one photo (decode, transform, session) without a server: its CPU time, and its time alone.

The same predictor on the same photos, in a process of its own on the machine that is otherwise at rest:

- alone: one thread, one photo after another, each with as many runtime threads as the server uses; the median.
- rested: the same, after a rest as long as a photo takes, as a worker at half load has it: caches and clock
  frequency are no longer those of a loop.
- busy: as many threads, and photos per run of the network, as the server works with when saturated, so that both
  share the same caches and memory between the same number of cores.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from pathlib import Path

from benchmarks._serving_model import load_photos


def main() -> None:
    """Arguments: bundle, runtime, worker threads, threads per session, photos per batch."""
    from model_code.serve.predictor import Predictor

    bundle, runtime = Path(sys.argv[1]), sys.argv[2]
    workers, threads, batch = map(int, sys.argv[3:6])
    predictor = Predictor.open(bundle, runtime=runtime, threads=threads)
    photos = [path.read_bytes() for path in load_photos()]
    predictor.predict(photos[:16])

    def times(rest: float) -> list[float]:
        spent = []
        for photo in photos:
            time.sleep(rest)
            started = time.perf_counter()
            predictor.predict([photo])
            spent.append(1000 * (time.perf_counter() - started))
        return spent

    alone = times(0.0)
    rested = times(statistics.median(alone) / 1000)

    def repeat() -> None:
        for start in range(0, len(photos), batch):
            predictor.predict(photos[start : start + batch])

    busy = [threading.Thread(target=repeat) for _ in range(workers)]
    cpu, wall = time.process_time(), time.perf_counter()
    for thread in busy:
        thread.start()
    for thread in busy:
        thread.join()
    done = workers * len(photos)
    result = {
        "cpu_ms": 1000 * (time.process_time() - cpu) / done,
        "per_second": done / (time.perf_counter() - wall),
        "ms": statistics.median(alone),
        "alone_ms": alone,
        "rested_ms": rested,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
