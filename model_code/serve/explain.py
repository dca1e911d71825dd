"""Class-activation maps (Zhou et al., 2016): the evidence for a class in each part of a photo.

For a network whose last feature map is averaged and goes through one linear layer, the logit of a class is
the mean over the map of `sum_k head[class, k] * features[k]`: that sum, before the mean, is the heat map.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from model_code.bundle.card import SAFETENSORS
from model_code.data.photos import Pixels
from model_code.predict.predictor import Predictor
from model_code.predict.runtimes import open_session
from model_code.predict.sessions import Floats, Runtime, Session, SessionError
from model_code.serve.http.messages import HttpError

_OPACITY = 0.5


class Explainer:
    """Heat maps for one opened model."""

    def __init__(self, predictor: Predictor) -> None:
        """Find the linear head and verify on a golden photo that the network ends in it.

        Raises:
            ValueError: The network has no map that explains its answer; the message says why.
        """
        self._predictor = predictor
        self._head = _linear_head(predictor)
        self._index = {name: number for number, name in enumerate(predictor.classes)}

    def class_index(self, target: str) -> int:
        """Index of a class.

        Raises:
            HttpError: 400 when the model has no such class.
        """
        if target not in self._index:
            raise HttpError(400, "class", f"the model has no class {target[:100]!r}")
        return self._index[target]

    def explain(self, pixels: Pixels, target: str | None) -> tuple[Floats, bytes]:
        """Logits [classes], and a PNG of the photo as the network sees it, under the heat map of a class.

        Args:
            pixels: The photo, uint8 [h, w, 3].
            target: The class; None for the predicted one.

        Raises:
            HttpError: the model has no class `target`.
        """
        chosen = None if target is None else self.class_index(target)
        logits, features = self._predictor.features_of([pixels])
        index = int(logits[0].argmax()) if chosen is None else chosen
        return logits[0], overlay(pixels, activation(features[0], self._head[index]))


def activation(features: Floats, weights: Floats) -> Floats:
    """Return the map [h', w'] of one class in 0..1: 0 without evidence, 1 at the maximum."""
    heat = np.maximum(np.tensordot(weights, features, axes=1), 0)
    peak = float(heat.max())
    return (heat / peak if peak > 0 else heat).astype(np.float32)


def overlay(pixels: Pixels, heat: Floats) -> bytes:
    """Return a PNG of the photo [h, w, 3] tinted by the map, from blue (low) to red (high)."""
    height, width = pixels.shape[:2]
    smooth = Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC)
    levels = np.clip(np.asarray(smooth) * 255, 0, 255).astype(np.uint8)
    tinted = pixels * (1 - _OPACITY) + _COLORS[levels] * _OPACITY
    out = io.BytesIO()
    Image.fromarray(tinted.astype(np.uint8)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _colors() -> NDArray[np.float32]:
    """256 colors from blue through green to red (the classic "jet" ramp)."""
    level = np.linspace(0, 1, 256)[:, None] * 4
    centers = np.array([3.0, 2.0, 1.0])
    return (np.clip(1.5 - np.abs(level - centers), 0, 1) * 255).astype(np.float32)


_COLORS = _colors()


def _linear_head(predictor: Predictor) -> Floats:
    if not predictor.session.has_features:
        raise ValueError(
            f"{predictor.card.architecture} has no final feature map under a linear head, which a heat map needs"
        )
    if not predictor.card.golden:
        raise ValueError("the bundle holds no golden photo to check the heat map's weights with")
    path = predictor.directory / SAFETENSORS
    if not path.is_file():
        raise ValueError(f"the bundle has no {SAFETENSORS}, which holds the linear head")
    photo = predictor.pixels(base64.b64decode(predictor.card.golden[0].photo))
    logits, features = _float_session(predictor).features(predictor.transform.normalize(photo[None]))
    pooled = features[0].mean(axis=(1, 2))
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{SAFETENSORS} cannot be read: {error}") from error
    wanted = (len(predictor.classes), len(pooled))
    for name, tensor in tensors.items():
        if tensor.shape == wanted:
            weights = np.ascontiguousarray(tensor, np.float32)
            bias = tensors.get(f"{name.removesuffix('weight')}bias", np.zeros(1)).astype(np.float32)
            if _agree(weights @ pooled + bias, logits[0]):
                return weights
    raise ValueError("the network does not end in one linear layer on the mean of its feature map")


def _float_session(predictor: Predictor) -> Session:
    """Return the session to check the head with: for int8, that of the float graph it was made of.

    The head of an int8 graph may be corrected for the rounding of its features, by an amount that depends on the
    model. Both graphs have the same layers, so the float one tells exactly whether the network ends in the head.
    """
    if predictor.runtime is not Runtime.ONNX_INT8 or Runtime.ONNX not in predictor.card.runtimes:
        return predictor.session
    try:
        return open_session(predictor.directory, Runtime.ONNX, predictor.card, threads=1)
    except SessionError as error:
        raise ValueError(
            f"the float network cannot be opened to check the heat map's weights: {error}"
        ) from error


def _agree(ours: Floats, logits: Floats) -> bool:
    """Return True if two rows of logits agree up to the rounding of a runtime."""
    if float(ours.std()) == 0 or float(logits.std()) == 0:
        return False
    return float(np.corrcoef(ours, logits)[0, 1]) > 0.98
