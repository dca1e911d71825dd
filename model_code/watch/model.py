"""The served model as a look uses it: its own answers, and the embeddings of its own backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_code.data import photos
from model_code.data.photos import PhotoError, Pixels
from model_code.embed.forward import best_forward
from model_code.predict.predictor import Predictor
from model_code.predict.torch_session import load_classifier
from model_code.process.cores import cores
from model_code.process.parallel import ordered_map
from model_code.watch.drift import Photos
from model_code.watch.properties import file_properties, looks

REFERENCE: Final = "reference.safetensors"
_BATCH: Final = 16


@dataclass(frozen=True)
class Seen:
    """A model's answers and embeddings for the photos that could be read.

    Args:
        photos: A row per readable photo.
        readable: Their numbers in what was given, [n].
        unreadable: (number, reason) of the others.
    """

    photos: Photos
    readable: NDArray[np.int64]
    unreadable: list[tuple[int, str]]


class WatchedModel:
    """A bundle opened for looking.

    Args:
        path: model.tar.gz, or the folder of an unpacked bundle.
    """

    def __init__(self, path: Path) -> None:
        self.predictor = Predictor.open(path, threads=1)
        self.digest = digest_of(self.predictor)
        classifier = load_classifier(self.predictor.directory, self.predictor.card)
        self._forward = best_forward(classifier.backbone, self.predictor.transform)

    def close(self) -> None:
        """Remove what was unpacked."""
        self.predictor.close()

    def see(
        self, files: Sequence[bytes], change: Callable[[Pixels, int], Pixels] | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> Seen:  # fmt: skip
        """Decode, answer and embed photos, on every core.

        Args:
            files: Encoded photos.
            change: Puts a fault on the pixels of a photo, given its number.
            advance: Told how many more are done.
        """
        rows: list[
            tuple[int, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
        ] = []
        unreadable: list[tuple[int, str]] = []

        def one(start: int) -> tuple[list[tuple[int, Pixels, NDArray[np.float32]]], list[tuple[int, str]]]:
            good, bad = [], []
            for number in range(start, min(start + _BATCH, len(files))):
                try:
                    pixels = self.predictor.pixels(files[number])
                    height, width = photos.size(files[number])
                except PhotoError as error:
                    bad.append((number, str(error)))
                    continue
                kind = photos.sniff(files[number][:16]) or ""
                made = file_properties(height, width, len(files[number]), kind)
                good.append((number, change(pixels, number) if change else pixels, made))
            return good, bad

        def answered(start: int) -> None:
            good, bad = one(start)
            unreadable.extend(bad)
            if good:
                stack = [pixels for _, pixels, _ in good]
                answers = self.predictor.probabilities(self.predictor.logits_of(stack))
                # In the precision in which a reference keeps them: what is nearly constant would differ otherwise.
                features = np.concatenate([self._forward(pixels[None]) for pixels in stack])
                features = features.astype(np.float16).astype(np.float32)
                for row, (number, pixels, made) in enumerate(good):
                    rows.append((number, features[row], answers[row], looks(pixels), made))
            advance(len(good) + len(bad))

        for _ in ordered_map(answered, range(0, len(files), _BATCH), cores()):
            pass
        rows.sort(key=lambda row: row[0])
        return Seen(
            _photos(rows, len(self.predictor.classes)), np.array([r[0] for r in rows], np.int64), unreadable
        )


def _photos(rows: Sequence[tuple[int, *tuple[NDArray[np.float32], ...]]], classes: int) -> Photos:
    if not rows:
        empty = np.empty((0, 0), np.float32)
        return Photos(empty, np.empty((0, classes), np.float32), empty, empty)
    columns = [np.stack([row[place] for row in rows]) for place in range(1, 5)]
    return Photos(*columns)


def digest_of(predictor: Predictor) -> str:
    """Name a model by what is in it but for its own reference: the same for the archive and its unpacked folder."""
    files = predictor.card.files.items()
    listed = sorted((name, entry.sha256) for name, entry in files if name != REFERENCE)
    return hashlib.sha256(repr(listed).encode()).hexdigest()[:16]
