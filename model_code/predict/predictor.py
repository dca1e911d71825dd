"""Open a model bundle and predict: the only path from photo bytes to calibrated probabilities.

Evaluation, the smoke test and the HTTP server all use it, so the model judged is the model served.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from model_code.bundle.archive import Bundle
from model_code.bundle.card import BundleError, Golden, ModelCard
from model_code.data.limits import MAX_PIXELS
from model_code.data.photos import Pixels
from model_code.data.transform import Transform
from model_code.predict.runtimes import open_session
from model_code.predict.sessions import Floats, Runtime, Session, SessionError
from model_code.predict.unknown import UNKNOWN, Unknown
from model_code.predict.unknown import load as load_unknown
from model_code.process.cores import cores

BATCH = 32
"""Photos per run in `predict`: beyond this, throughput on a CPU no longer rises while memory does."""

GOLDEN_TOLERANCE = {Runtime.ONNX_INT8: 0.05, Runtime.ONNX: 0.02, Runtime.TORCH: 0.02}
"""Largest difference of any probability from the golden output that the same runtime recorded.

Float kernels of different processors differ in the fourth digit; int8 kernels without VNNI saturate
differently.
"""

CROSS_TOLERANCE = 0.25
"""The same against another runtime's output: int8 is judged by accuracy at export, here only for gross errors."""


def warn(message: str) -> None:
    """Print a warning to standard error, which every container logs."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


class Predictor:
    """A model ready to answer. Thread-safe; with one thread, each call runs on the caller's thread."""

    def __init__(
        self, card: ModelCard, runtime: Runtime, session: Session, threads: int, bundle: Bundle
    ) -> None:
        self.card = card.served_by(runtime)
        self.runtime = runtime
        self.threads = threads
        self.session = session
        self.transform = read_transform(card)
        self._bundle = bundle
        self.unknown = _read_unknown(bundle)
        self._inverse_temperature = np.float32(1.0 / self.card.temperature)

    @classmethod
    def open(
        cls,
        path: Path | str,
        runtime: str | None = None,
        threads: int | None = None,
        workdir: Path | None = None,
        on_fallback: Callable[[str], None] = warn,
    ) -> Predictor:
        """Open a bundle in the best runtime that reproduces its golden outputs.

        Args:
            path: the bundle's folder or `model.tar.gz`.
            runtime: `onnx-int8`, `onnx` or `torch`: the first to try. By default the bundle's own preference.
            threads: threads that one call uses; by default this process's share (SM_NUM_CPUS,
                OMP_NUM_THREADS, cores).
            workdir: where to unpack an archive; by default a temporary folder.
            on_fallback: Called with one line for each runtime that was skipped.

        Raises:
            BundleError: the bundle cannot be trusted, or no runtime here reproduces its golden outputs.
        """
        bundle = Bundle.open(path, workdir=workdir)
        threads = threads or cores()
        reasons = []
        for candidate in candidates(bundle.card.runtimes, runtime):
            try:
                session = open_session(bundle.directory, candidate, bundle.card, threads)
                predictor = cls(bundle.card, candidate, session, threads, bundle)
                predictor.replay_golden()
            except (SessionError, GoldenMismatch) as reason:
                reasons.append(f"{candidate}: {reason}")
                on_fallback(f"{path}: cannot serve with {candidate}, trying the next runtime: {reason}")
                continue
            return predictor
        bundle.close()
        raise BundleError(f"{path}: no runtime can serve this model: {'; '.join(reasons)}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.card.classes

    @property
    def directory(self) -> Path:
        """The unpacked bundle."""
        return self._bundle.directory

    def close(self) -> None:
        """Remove what was unpacked."""
        self._bundle.close()

    def pixels(self, photo: bytes, max_pixels: int = MAX_PIXELS) -> Pixels:
        """Decode, resize and crop one photo: uint8 [h, w, 3].

        Raises:
            PhotoError: the bytes are not a readable photo, or it has more than `max_pixels`.
        """
        return self.transform.pixels(photo, max_pixels=max_pixels)

    def logits_of(self, pixels: Sequence[Pixels]) -> Floats:
        """Logits [n, classes] of photos that `pixels` prepared; n is the size of one run of the network."""
        return self.session.logits(self._batch(pixels))

    def features_of(self, pixels: Sequence[Pixels]) -> tuple[Floats, Floats]:
        """Logits [n, classes] and the last feature map [n, channels, h', w'].

        Raises:
            SessionError: the network has no feature map that its answer is a mean of.
        """
        return self.session.features(self._batch(pixels))

    def _batch(self, pixels: Sequence[Pixels]) -> Floats:
        return self.transform.normalize(pixels[0][None] if len(pixels) == 1 else np.stack(pixels))

    def probabilities(self, logits: Floats) -> Floats:
        """Calibrated probabilities [n, classes] of logits [n, classes]: softmax(logits / temperature)."""
        scaled = logits * self._inverse_temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        np.exp(scaled, out=scaled)
        scaled /= scaled.sum(axis=1, keepdims=True)
        return scaled

    def logits(self, photos: Sequence[bytes]) -> Floats:
        """Logits [n, classes] before temperature.

        Raises:
            PhotoError: one of the photos cannot be read.
        """
        rows = [
            self.logits_of([self.pixels(photo) for photo in photos[start : start + BATCH]])
            for start in range(0, len(photos), BATCH)
        ]
        return np.concatenate(rows) if rows else np.empty((0, len(self.classes)), np.float32)

    def predict(self, photos: Sequence[bytes]) -> Floats:
        """Calibrated probabilities, float32 [n, classes].

        Raises:
            PhotoError: one of the photos cannot be read.
        """
        return (
            self.probabilities(self.logits(photos))
            if photos
            else np.empty((0, len(self.classes)), np.float32)
        )

    def replay_golden(self) -> None:
        """Compare with the outputs stored in the bundle.

        Raises:
            GoldenMismatch: this runtime, on this processor, answers something else.
        """
        golden = self.card.golden
        if not golden:
            return
        answers = self.predict([base64.b64decode(item.photo) for item in golden])
        for number, (item, answer) in enumerate(zip(golden, answers, strict=True)):
            expected, tolerance = golden_output(item, self.runtime)
            difference = float(np.abs(answer - np.asarray(expected, np.float32)).max())
            if not difference <= tolerance:
                raise GoldenMismatch(
                    f"golden photo {number} differs by {difference:.3f} in probability, at most {tolerance} is allowed"
                )


def read_transform(card: ModelCard) -> Transform:
    """Return the card's transform.

    Raises:
        BundleError: its fields are not those of this release's transform.
    """
    try:
        return Transform.from_dict(dict(card.transform))
    except (TypeError, ValueError, KeyError) as error:
        raise BundleError(f"model.json: transform: {error}: export the model again") from error


def _read_unknown(bundle: Bundle) -> Unknown | None:
    """Read the detector of unknown photos; None for a model of an older release."""
    if UNKNOWN not in bundle.card.files:
        return None
    try:
        return load_unknown(bundle.file(UNKNOWN))
    except ValueError as error:
        raise BundleError(str(error)) from error


class GoldenMismatch(Exception):
    """A runtime does not reproduce the bundle's golden outputs."""


def golden_output(item: Golden, runtime: Runtime) -> tuple[Sequence[float], float]:
    """Return the probabilities to compare with, and the largest difference allowed."""
    own = item.runtime.get(runtime)
    if own is not None or runtime is not Runtime.ONNX_INT8:
        return own or item.probabilities, GOLDEN_TOLERANCE[runtime]
    return item.probabilities, CROSS_TOLERANCE


def candidates(available: Sequence[str], first: str | None) -> list[Runtime]:
    """Runtimes to try, in order: from `first` if given, else from the bundle's preferred one.

    Raises:
        BundleError: `first` is not in the bundle.
    """
    order = [Runtime(name) for name in available]
    if first is None:
        return order
    if first not in order:
        raise BundleError(f"the bundle has no runtime {first!r}; it has {', '.join(order)}")
    return order[order.index(Runtime(first)) :]
