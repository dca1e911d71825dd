"""Photos per second of a backbone's forward pass alone, in OpenVINO: its throughput mode, float32, random photos."""

from __future__ import annotations

import sys
import time

import numpy as np


def main() -> None:
    """Arguments: ONNX file, batch size, side, threads, seconds. Prints the rate."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it would report the import
    import openvino

    path, batch, side, threads, seconds = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5])
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape([batch, 3, side, side])
    compiled = core.compile_model(model, "CPU", settings)
    queue = openvino.AsyncInferQueue(compiled, 0)
    photos = np.random.default_rng(0).standard_normal((batch, 3, side, side), np.float32)
    for _ in range(2 * len(queue)):
        queue.start_async({0: photos})
    queue.wait_all()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        queue.start_async({0: photos})
        done += batch
    queue.wait_all()
    print(done / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
