"""The model behind the worker threads: photos to pixels within memory limits, batches to probabilities, heat maps."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from model_code.data import photos
from model_code.data.photos import PhotoError, PhotoReason, Pixels
from model_code.predict.predictor import Predictor
from model_code.predict.sessions import Floats
from model_code.serve.answers import Answer
from model_code.serve.explain import Explainer
from model_code.serve.http.messages import HttpError

LARGE = 4_000_000
"""Decoded pixels from which a process decodes photos one at a time, so that two decompression bombs never meet."""


class ServedModel:
    """A predictor within the limits of a server. Thread-safe."""

    def __init__(self, predictor: Predictor, max_pixels: int, explain: bool) -> None:
        self.predictor = predictor
        self._max_pixels = max_pixels
        self._large = threading.Lock()
        self._explainer: Explainer | None = None
        self.no_explanation = (
            "explanations are off on this server: start it with --explain or SERVE_EXPLAIN=true"
        )
        if explain:
            try:
                self._explainer = Explainer(predictor)
            except ValueError as reason:
                self.no_explanation = str(reason)

    @property
    def explains(self) -> bool:
        """True if heat maps are available; if not, `no_explanation` says why."""
        return self._explainer is not None

    def prepare(self, photo: bytes) -> Pixels:
        """Decode, resize and crop.

        Raises:
            PhotoError: unreadable, or too large to be decoded here.
        """
        try:
            height, width = photos.size(photo, max_pixels=self._max_pixels)
            small = _decodes_small(photo)
            shrink = photos.scale_factor(min(height, width), self.predictor.transform.resize) if small else 1
            if height * width < LARGE * shrink**2:
                return self.predictor.pixels(photo, self._max_pixels)
            with self._large:
                return self.predictor.pixels(photo, self._max_pixels)
        except PhotoError:
            raise
        except Exception as error:  # whatever a decoder throws at hostile bytes, the bytes are to blame
            raise PhotoError(PhotoReason.DAMAGED, type(error).__name__) from error

    def predict(self, prepared: Sequence[Pixels]) -> Floats:
        """Calibrated probabilities [n, classes]."""
        return self.predictor.probabilities(self.predictor.logits_of(prepared))

    def explain(self, prepared: Pixels, target: str | None) -> Answer:
        """Return one photo's answer with its heat map.

        Raises:
            HttpError: 4xx saying why there is none.
        """
        if self._explainer is None:
            raise HttpError(403, "explain", self.no_explanation)
        logits, heat_map = self._explainer.explain(prepared, target)
        return Answer.of(self.predictor.probabilities(logits[None])[0], heat_map)


def _decodes_small(photo: bytes) -> bool:
    """Return a JPEG whose scans are not progressive: libjpeg-turbo decodes it at reduced scale, row by row.

    A progressive one (frame header SOF2) needs all its coefficients in memory, whatever the scale. The segments are
    walked by their lengths (ITU-T T.81, B.1.1.4): a thumbnail in one of them has a frame header of its own.
    """
    place = 2
    for _ in range(_MOST_SEGMENTS):
        if not photo.startswith(b"\xff", place):
            break
        marker = photo[place + 1 : place + 2]
        if marker in _FRAMES:
            return marker in _SEQUENTIAL_FRAMES
        # Any number of 0xff may stand before a marker.
        place += 1 if marker == b"\xff" else 2 + int.from_bytes(photo[place + 2 : place + 4])
    return False


_SEQUENTIAL_FRAMES = {b"\xc0", b"\xc1"}
_FRAMES = {bytes([marker]) for marker in range(0xC0, 0xD0)} - {b"\xc4", b"\xc8", b"\xcc"}
_MOST_SEGMENTS = 4096
"""Of a real photo's metadata, at 64 kB each; a hostile one has millions of empty ones."""
