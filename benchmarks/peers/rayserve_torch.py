"""Ray Serve with torch eager, after its "Serve ML models" tutorial, a replica per core."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.network import Classifier


@serve.deployment(num_replicas=len(os.sched_getaffinity(0)))
class ImageModel:
    def __init__(self) -> None:
        self.classifier = Classifier()

    async def __call__(self, request: Request) -> dict[str, Any]:
        index, probability = self.classifier.predict(self.classifier.decode(await request.body()))
        return {"class_id": index, "probability": probability}


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(ImageModel.bind(), route_prefix="/predict")  # type: ignore[attr-defined]
    while True:
        time.sleep(3600)
