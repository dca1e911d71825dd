"""LitServe around our predictor (decode, transform, ONNX Runtime session): what remains is what the server costs."""

from __future__ import annotations

import base64
import os
import sys
from typing import Any

import litserve as ls

from model_code.predict.predictor import Predictor


class PredictorAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.predictor = Predictor.open(
            os.environ["BENCH_BUNDLE"], runtime=os.environ["BENCH_RUNTIME"], threads=1
        )

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads annotations
        return self.predictor.pixels(base64.b64decode(request["image_data"]))

    def predict(self, pixels: Any) -> Any:
        return self.predictor.probabilities(self.predictor.logits_of([pixels]))[0]

    def encode_response(self, probabilities: Any) -> dict[str, Any]:
        best = int(probabilities.argmax())
        return {"class": self.predictor.classes[best], "probability": float(probabilities[best])}


if __name__ == "__main__":
    workers = len(os.sched_getaffinity(0))
    server = ls.LitServer(PredictorAPI(), accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
