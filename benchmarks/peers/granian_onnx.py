"""granian (an HTTP server in Rust) around our predictor: a process per core, each with a session of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from model_code.predict.predictor import Predictor


@cache
def predictor() -> Predictor:
    """The worker's predictor; granian starts its workers as new processes."""
    return Predictor.open(os.environ["BENCH_BUNDLE"], runtime=os.environ["BENCH_RUNTIME"], threads=1)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI app: the photo is the body."""
    photo = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    mine = predictor()
    probabilities = mine.probabilities(mine.logits_of([mine.pixels(photo)]))[0]
    best = int(probabilities.argmax())
    body = json.dumps({"class": mine.classes[best], "probability": float(probabilities[best])}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    from granian import Granian
    from granian.constants import Interfaces

    Granian(
        "benchmarks.peers.granian_onnx:app",
        port=int(sys.argv[1]),
        interface=Interfaces.WSGI,
        workers=len(os.sched_getaffinity(0)),
        blocking_threads=1,
        log_enabled=False,
    ).serve()
