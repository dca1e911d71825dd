"""Golden photos and the answers that a loaded model must reproduce."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_code.bundle import archive as bundle
from model_code.data.photos import PhotoError, decode
from model_code.data.shards import read_shard
from model_code.predict.predictor import Predictor

GOLDEN_PHOTOS = 4
GOLDEN_SIDE = 96


def golden_photos(shards: Sequence[Path], count: int = GOLDEN_PHOTOS) -> list[bytes]:
    """Encode a few photos as small JPEGs (a few kB each), from the first shard that has any; drawn ones if none has."""
    photos: list[bytes] = []
    for shard in shards:
        for sample in read_shard(shard):
            try:
                photos.append(_shrunk(decode(sample.data, min_side=GOLDEN_SIDE)))
            except PhotoError:
                continue
            if len(photos) == count:
                return photos
    return photos or [_shrunk(_drawn(number)) for number in range(count)]


def _shrunk(pixels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(pixels)
    scale = GOLDEN_SIDE / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _drawn(number: int) -> NDArray[np.uint8]:
    """Draw smooth colored waves, which every layer responds to."""
    rows, columns = np.mgrid[0:GOLDEN_SIDE, 0:GOLDEN_SIDE] / GOLDEN_SIDE
    waves = [np.sin(2 * np.pi * ((1 + number) * rows + (1 + channel) * columns)) for channel in range(3)]
    return np.asarray(127.5 + 127.5 * np.stack(waves, axis=-1), np.uint8)


def answers(
    output: Path, fields: Mapping[str, Any], photos: Sequence[bytes], runtime: str
) -> NDArray[np.float32]:
    """Probabilities [photos, classes] of the unfinished bundle, by the path that will serve it."""
    bundle.write_card(output, {**fields, "runtimes": [runtime], "golden": []})
    predictor = Predictor.open(output, runtime=runtime)
    return predictor.predict(photos)


def golden_entries(
    output: Path, fields: Mapping[str, Any], photos: Sequence[bytes], runtimes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the `golden` entries of the card: each photo with the answers of every runtime."""
    rows = {runtime: answers(output, fields, photos, runtime).tolist() for runtime in runtimes}
    main = rows["onnx" if "onnx" in rows else "torch"]
    int8 = rows.get("onnx-int8")
    return [
        {
            "photo": base64.b64encode(photo).decode("ascii"),
            "probabilities": main[number],
            "runtime": {} if int8 is None else {"onnx-int8": int8[number]},
        }
        for number, photo in enumerate(photos)
    ]
