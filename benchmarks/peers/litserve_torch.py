"""LitServe with torch eager, after its image classification tutorial (base64 in JSON, one worker)."""

from __future__ import annotations

import base64
import sys
from typing import Any

import litserve as ls

from benchmarks.peers.network import Classifier


class ImageClassifierAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.classifier = Classifier()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads annotations
        return self.classifier.decode(base64.b64decode(request["image_data"]))

    def predict(self, batch: Any) -> tuple[int, float]:
        return self.classifier.predict(batch)

    def encode_response(self, output: tuple[int, float]) -> dict[str, Any]:
        return {"class_id": output[0], "probability": output[1]}


if __name__ == "__main__":
    server = ls.LitServer(ImageClassifierAPI(), accelerator="cpu", track_requests=False)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
