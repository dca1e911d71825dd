"""FastAPI with torch eager: an upload endpoint as FastAPI's documentation shows, one uvicorn process."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI, UploadFile

from benchmarks.peers.network import Classifier

app = FastAPI()
classifier = Classifier()


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, float]:
    """A plain function: FastAPI runs it in its thread pool."""
    index, probability = classifier.predict(classifier.decode(file.file.read()))
    return {"class_id": index, "probability": probability}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
