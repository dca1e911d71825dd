"""Class-activation heat maps: on request, where the network has one, off by default."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_code.bundle.archive import write_card
from model_code.predict.predictor import Predictor
from model_code.serve.explain import Explainer, activation
from tests.model_code.serve.running import FIXED, Server
from tests.model_code.serve.toy_bundle import SIDE, encode, photo, write_toy

RED = photo("red", kind="PNG")


def left_red_right_blue() -> bytes:
    image = Image.new("RGB", (64, 64), "red")
    image.paste((0, 0, 255), (32, 0, 64, 64))
    return encode(image, "PNG")


def heat(png: bytes) -> np.ndarray:
    """Return the heat of each half above the photo's: red minus blue, [left, right]."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float32)
    warm = pixels[..., 0] - pixels[..., 2]
    return np.array([warm[:, : SIDE // 2].mean(), warm[:, SIDE // 2 :].mean()])


def test_heat_map_as_png_lights_up_where_the_class_is(server: Server) -> None:
    data = left_red_right_blue()
    maps = {}
    for name in ("red", "blue"):
        reply = server.invoke(data, "image/png", f"?explain=true&class={name}", Accept="image/png")
        assert reply.status == 200, reply.body
        assert reply.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(reply.body)).size == (SIDE, SIDE)
        maps[name] = heat(reply.body)
    assert maps["red"][0] > maps["blue"][0]
    assert maps["blue"][1] > maps["red"][1]


def test_heat_map_within_json(server: Server) -> None:
    document = {"instances": [base64.b64encode(RED).decode()], "parameters": {"explain": True}}
    (prediction,) = server.invoke_json(document).json()["predictions"]
    assert prediction["class"] == "red"
    assert base64.b64decode(prediction["explanation"]).startswith(b"\x89PNG")


def test_no_heat_map_unless_asked_for(server: Server) -> None:
    assert "explanation" not in server.invoke(RED).json()["predictions"][0]


def test_unknown_class_and_png_without_explain_are_4xx(server: Server) -> None:
    assert server.invoke(RED, query="?explain=1&class=purple").status == 400
    assert server.invoke(RED, Accept="image/png").status == 406
    assert server.invoke(RED, query="?explain=maybe").status == 400


def test_off_by_default(tmp_path: Path) -> None:
    with Server(write_toy(tmp_path / "toy"), tmp_path, *FIXED) as server:
        reply = server.invoke(RED, query="?explain=true")
        assert reply.status == 403
        assert "--explain" in reply.json()["error"]["message"]


def test_a_network_without_a_final_map_says_so(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", features=False)
    with Server(toy, tmp_path, *FIXED, SERVE_EXPLAIN="true") as server:
        reply = server.invoke(RED, query="?explain=true")
        assert reply.status == 403
        assert "no final feature map" in reply.json()["error"]["message"]


def test_weights_that_do_not_lead_to_the_logits_are_not_believed(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    toy = write_toy(tmp_path / "toy")
    predictor = Predictor.open(toy, threads=1)
    Explainer(predictor)
    save_file({"head.weight": np.eye(3, dtype=np.float32)[::-1].copy()}, toy / "model.safetensors")
    fields = predictor.card.to_json()
    write_card(toy, {name: fields[name] for name in fields if name not in ("files", "schema_version")})
    with pytest.raises(ValueError, match="linear layer"):
        Explainer(Predictor.open(toy, threads=1))


def test_activation_is_scaled_and_never_negative() -> None:
    features = np.array([[[1.0, 2.0]], [[4.0, 0.0]]], np.float32)
    np.testing.assert_allclose(activation(features, np.array([1.0, -1.0], np.float32)), [[0.0, 1.0]])
    assert not activation(features, np.array([-1.0, 0.0], np.float32)).any()


def test_an_int8_head_that_was_corrected_is_explained_all_the_same(tmp_path: Path) -> None:
    corrected = np.array([[8.0, 3.0, 0.0], [0.0, 8.0, 3.0], [3.0, 0.0, 8.0]])
    toy = write_toy(tmp_path / "toy", int8_head=corrected, golden=True)
    predictor = Predictor.open(toy, runtime="onnx", threads=1)
    answers = predictor.predict([photo(name, kind="PNG") for name in ("red", "lime", "blue")])
    own = Predictor.open(toy, runtime="onnx-int8", threads=1, on_fallback=lambda _: None)
    assert own.runtime == "onnx"  # it contradicts the golden answers of the uncorrected graph
    fields = predictor.card.to_json()
    scaled = np.exp(corrected @ np.eye(3) / 2).T
    rows = scaled / scaled.sum(1, keepdims=True)
    for item, row in zip(fields["golden"], rows.tolist(), strict=True):
        item["runtime"] = {"onnx-int8": row}
    write_card(toy, {name: fields[name] for name in fields if name not in ("files", "schema_version")})
    int8 = Predictor.open(toy, runtime="onnx-int8", threads=1)
    assert int8.runtime == "onnx-int8"
    assert not np.allclose(int8.predict([RED]), answers[:1], atol=0.02)
    logits, png = Explainer(int8).explain(int8.pixels(left_red_right_blue()), "blue")
    assert logits.shape == (3,)
    assert heat(png)[1] < heat(png)[0]
