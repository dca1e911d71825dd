"""Decoding within memory limits: what is big once decoded goes one at a time, what only looks big does not wait."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_code.data.limits import MAX_PIXELS
from model_code.data.photos import Pixels
from model_code.predict.predictor import Predictor
from model_code.serve.served_model import LARGE, ServedModel, _decodes_small
from tests.model_code.serve.toy_bundle import encode, write_toy

SIDE = 2400
DEADLINE = 30.0


class Meeting:
    """Decoding as the workers see it: how many are in it at a time, and how many must be before any may leave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wanted: int) -> None:
        self.most = self._inside = 0
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(wanted)
        decode = Predictor.pixels

        def pixels(predictor: Predictor, photo: bytes, max_pixels: int = MAX_PIXELS) -> Pixels:
            with self._lock:
                self._inside += 1
                self.most = max(self.most, self._inside)
            self._barrier.wait(DEADLINE)
            decoded = decode(predictor, photo, max_pixels)
            with self._lock:
                self._inside -= 1
            return decoded

        monkeypatch.setattr(Predictor, "pixels", pixels)


def prepare_together(model: ServedModel, photo: bytes, workers: int) -> list[Pixels]:
    """Return the same photo as prepared by `workers` threads."""
    prepared: list[Pixels] = []
    threads = [threading.Thread(target=lambda: prepared.append(model.prepare(photo))) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return prepared


@pytest.fixture
def model(tmp_path: Path) -> ServedModel:
    return ServedModel(Predictor.open(write_toy(tmp_path), threads=1), max_pixels=24_000_000, explain=False)


@pytest.fixture(scope="module")
def big() -> Image.Image:
    assert SIDE * SIDE > LARGE
    return Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8))


def test_big_jpegs_that_decode_small_are_decoded_side_by_side(
    model: ServedModel, big: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = Meeting(monkeypatch, wanted=2)
    assert len(prepare_together(model, encode(big, "JPEG"), 2)) == 2
    assert meeting.most == 2


def thumbnail(**options: bool) -> bytes:
    """An application segment that holds a whole JPEG, as cameras write them."""
    small = encode(Image.new("RGB", (16, 16)), "JPEG", **options)
    return b"\xff\xe1" + (len(small) + 2).to_bytes(2) + small


@pytest.mark.parametrize("progressive", [True, False])
@pytest.mark.parametrize("fill", [b"", b"\xff" * 9])
def test_what_decodes_small_is_told_by_the_photo_not_its_thumbnail(progressive: bool, fill: bytes) -> None:
    photo = encode(Image.new("RGB", (64, 64)), "JPEG", progressive=progressive)
    assert _decodes_small(photo) is not progressive
    for other in (True, False):
        assert _decodes_small(photo[:2] + fill + thumbnail(progressive=other) + photo[2:]) is not progressive


@pytest.mark.parametrize(
    "photo", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8" + b"\xff\xe1\0\0" * 1_000_000]
)
def test_what_has_no_frame_does_not_decode_small(photo: bytes) -> None:
    assert not _decodes_small(photo)


@pytest.mark.parametrize("options", [{"kind": "PNG"}, {"kind": "JPEG", "progressive": True}])
def test_photos_that_decode_big_go_one_at_a_time(
    model: ServedModel, big: Image.Image, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    meeting = Meeting(monkeypatch, wanted=1)
    assert len(prepare_together(model, encode(big, **options), 4)) == 4
    assert meeting.most == 1
