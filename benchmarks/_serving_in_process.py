"""The work of one photo (decode, transform, session) without a server: its CPU time, and its time alone."""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from pathlib import Path

from benchmarks._serving_model import load_photos


def main() -> None:
    """Arguments: bundle, runtime, worker threads, threads per session."""
    from model_code.serve.predictor import Predictor

    bundle, runtime, workers, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    predictor = Predictor.open(bundle, runtime=runtime, threads=threads)
    photos = [path.read_bytes() for path in load_photos()]
    predictor.predict(photos[:16])
    alone = []
    for photo in photos:
        started = time.perf_counter()
        predictor.predict([photo])
        alone.append(time.perf_counter() - started)

    def repeat() -> None:
        for photo in photos:
            predictor.predict([photo])

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
        "ms": 1000 * statistics.median(alone),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
