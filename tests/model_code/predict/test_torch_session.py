"""Torch serves what has no ONNX: the same answers over HTTP, heat maps included."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from model_code.bundle.archive import write_card
from model_code.networks.backbone import build
from model_code.predict.predictor import Predictor
from tests.model_code.serve.running import FIXED, Server
from tests.model_code.serve.toy_bundle import TRANSFORM, encode

NOISE = encode(Image.effect_noise((40, 50), 90).convert("RGB"), "PNG")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained resnet18 as `model.safetensors` only."""
    folder = tmp_path_factory.mktemp("torch")
    model = build("resnet18", classes=3)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "model.safetensors",
    )
    fields = {
        "name": "torch-only",
        "architecture": "resnet18",
        "classes": ["a", "b", "c"],
        "transform": TRANSFORM.to_dict(),
        "temperature": 1.5,
        "abstain_threshold": 0.0,
        "metrics": {},
        "hyperparameters": {},
        "dataset": {"name": "noise", "version": "1"},
        "code_version": "test",
        "embedder_id": None,
        "weights_sha256": None,
        "runtimes": ["torch"],
    }
    write_card(folder, {**fields, "golden": []})
    answer = Predictor.open(folder, threads=1).predict([NOISE])[0].tolist()
    golden = [{"photo": base64.b64encode(NOISE).decode(), "probabilities": answer}]
    write_card(folder, {**fields, "golden": golden})
    return folder


def test_torch_serves_and_explains(bundle: Path, tmp_path: Path) -> None:
    predictor = Predictor.open(bundle, threads=1)
    assert predictor.runtime == "torch"
    expected = predictor.predict([NOISE])[0]
    with Server(bundle, tmp_path, *FIXED, "--explain") as server:
        document = server.invoke(NOISE, "image/png", "?top_k=all").json()
        assert document["model"]["runtime"] == "torch"
        top = {entry["class"]: entry["probability"] for entry in document["predictions"][0]["top"]}
        np.testing.assert_allclose([top[name] for name in predictor.classes], expected, atol=1e-5)
        reply = server.invoke(NOISE, "image/png", "?explain=1", Accept="image/png")
        assert Image.open(io.BytesIO(reply.body)).format == "PNG"


def test_weights_that_do_not_fit_are_one_line(bundle: Path, tmp_path: Path) -> None:
    import json

    from model_code.bundle.card import BundleError

    card = json.loads((bundle / "model.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((bundle / "model.safetensors").read_bytes())
    (tmp_path / "model.json").write_text(json.dumps({**card, "architecture": "resnet50"}))
    with pytest.raises(BundleError, match=r"model\.safetensors does not fit resnet50"):
        Predictor.open(tmp_path, threads=1, on_fallback=lambda _: None)
