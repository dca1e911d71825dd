"""The work of one photo (decode, transform, session) without a server, in a process of its own.

The same predictor on the same photos. Each line on standard input asks for one measurement, each line of JSON on
standard output answers it:

- `alone`: one thread, one photo after another, each with as many runtime threads as the server uses; milliseconds.
- `busy`: as many threads, and photos per run of the network, as the server works with when saturated, so that both
  share the same caches and memory between the same number of cores; CPU time per photo and photos per second.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks._serving_model import load_photos

_SHORT = 128
"""Photos of one series: about half a second, shorter than the machine keeps its speed."""


def main() -> None:
    """Arguments: bundle, runtime, worker threads, threads per session, photos per batch."""
    from model_code.predict.predictor import Predictor

    bundle, runtime = Path(sys.argv[1]), sys.argv[2]
    workers, threads, batch = map(int, sys.argv[3:6])
    predictor = Predictor.open(bundle, runtime=runtime, threads=threads)
    photos = [path.read_bytes() for path in load_photos()]
    predictor.predict(photos[:16])

    def alone() -> list[float]:
        spent = []
        for photo in photos[:_SHORT]:
            started = time.perf_counter()
            predictor.predict([photo])
            spent.append(1000 * (time.perf_counter() - started))
        return spent

    def busy() -> dict[str, float]:
        def repeat() -> None:
            for start in range(0, len(photos), batch):
                predictor.predict(photos[start : start + batch])

        crew = [threading.Thread(target=repeat) for _ in range(workers)]
        cpu, wall = time.process_time(), time.perf_counter()
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        done = workers * len(photos)
        return {
            "cpu_ms": 1000 * (time.process_time() - cpu) / done,
            "per_second": done / (time.perf_counter() - wall),
        }

    alone()
    measurements: dict[str, Any] = {"alone": alone, "busy": busy}
    for line in sys.stdin:
        print(json.dumps(measurements[line.strip()]()), flush=True)


if __name__ == "__main__":
    main()
