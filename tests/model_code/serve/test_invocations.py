"""Requests and answers: content types, formats of answers, options, every kind of photo."""

from __future__ import annotations

import base64
import csv
import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_code.predict.predictor import Predictor
from tests.model_code.serve.running import FIXED, Server
from tests.model_code.serve.toy_bundle import encode, photo, probabilities, write_toy

RED = photo("red", kind="PNG")
BLUE = photo("blue", kind="PNG")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_ping(server: Server) -> None:
    assert server.request("GET", "/ping").status == 200
    assert server.request("HEAD", "/ping").body == b""


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [
        ("JPEG", "image/jpeg"),
        ("JPEG", "image/jpg"),
        ("PNG", "image/png"),
        ("PNG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
        ("AVIF", "image/avif"),
        ("TIFF", "application/json"),
        ("PNG", "application/x-image"),
        ("JPEG", "application/octet-stream"),
    ],
)
def test_photo_on_its_own(server: Server, kind: str, content_type: str) -> None:
    reply = server.invoke(photo("lime", kind=kind), content_type)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    (prediction,) = reply.json()["predictions"]
    assert prediction["class"] == "green"
    assert prediction["abstain"] is False
    assert prediction["top"][0]["class"] == "green"


def test_answer_carries_calibrated_probabilities_and_provenance(server: Server) -> None:
    document = server.invoke(RED, "image/png").json()
    top = {entry["class"]: entry["probability"] for entry in document["predictions"][0]["top"]}
    assert [top["red"], top["green"], top["blue"]] == pytest.approx(probabilities(1, 0, 0), abs=1e-6)
    assert document["dataset"] == {"name": "colours", "version": "c0ffee"}
    assert document["model"]["name"] == "toy"
    assert document["model"]["runtime"] == "onnx-int8"
    assert len(document["model"]["version"]) == 12


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [{"b64": b64(RED)}, {"b64": b64(BLUE)}]},
        {"instances": [{"image_bytes": {"b64": b64(RED)}}, b64(BLUE)]},
        {"images": [b64(RED), b64(BLUE)]},
        [b64(RED), {"image": b64(BLUE)}],
        [f"data:image/png;base64,{b64(RED)}", b64(BLUE).rstrip("=")],
        [b64(RED).replace("+", "-").replace("/", "_"), "\n".join([b64(BLUE)[:40], b64(BLUE)[40:]])],
    ],
)
def test_several_photos_in_json_keep_their_order(server: Server, document: object) -> None:
    reply = server.invoke_json(document)
    assert [prediction["class"] for prediction in reply.json()["predictions"]] == ["red", "blue"]


@pytest.mark.parametrize("document", [{"b64": b64(RED)}, {"image": b64(RED)}, b64(RED)])
def test_one_photo_in_json(server: Server, document: object) -> None:
    assert server.invoke_json(document).json()["predictions"][0]["class"] == "red"


def test_json_lines_are_answered_line_by_line(server: Server) -> None:
    body = "\n".join(json.dumps({"b64": b64(data)}) for data in (RED, BLUE, RED)) + "\n"
    reply = server.invoke(body.encode(), "application/jsonlines")
    assert reply.headers["content-type"] == "application/jsonlines"
    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert [line["class"] for line in lines] == ["red", "blue", "red"]
    assert lines[0]["dataset"]["version"] == "c0ffee"


def test_a_bad_line_spoils_itself_only(server: Server) -> None:
    body = b"\n".join(
        [json.dumps({"b64": b64(RED)}).encode(), b"{", b'{"b64": "AAAA"}', json.dumps(b64(BLUE)).encode()]
    )
    lines = [json.loads(line) for line in server.invoke(body, "application/jsonlines").body.splitlines()]
    assert lines[0]["class"] == "red"
    assert lines[1]["error"]["reason"] == "json"
    assert lines[2]["error"]["reason"] == "photo_not_a_photo"
    assert lines[3]["class"] == "blue"
    in_json = server.invoke(body, "application/jsonlines", Accept="application/json").json()["predictions"]
    assert [answer.get("class") for answer in in_json] == ["red", None, None, "blue"]
    assert [in_json[n]["error"]["reason"] for n in (1, 2)] == ["json", "photo_not_a_photo"]


def test_blank_lines_are_no_photos(server: Server) -> None:
    body = b"\n \r\n\n".join([json.dumps(b64(RED)).encode()] * 40) + b"\n\n"
    assert len(server.invoke(body, "application/jsonlines").body.splitlines()) == 40


def test_csv(server: Server) -> None:
    reply = server.invoke(RED, "image/png", "?top_k=2", Accept="text/csv")
    assert reply.headers["content-type"] == "text/csv"
    (row,) = csv.reader(io.StringIO(reply.body.decode()))
    assert [row[0], row[2]] == ["red", "0"]
    assert float(row[1]) == pytest.approx(probabilities(1, 0, 0)[0], abs=1e-6)
    assert len(row) == 5


def test_a_class_in_csv_is_no_formula(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", classes=("=cmd()", "@sum", "-5"))
    with Server(toy, tmp_path, *FIXED) as server:
        reply = server.invoke(RED, "image/png", "?top_k=3", Accept="text/csv")
        (row,) = csv.reader(io.StringIO(reply.body.decode()))
        assert [row[0], row[3], row[5]] == ["'=cmd()", *sorted(("'@sum", "'-5"), key=row.index)]
        assert float(row[1]) > 0.5
        assert server.invoke(RED, "image/png").json()["predictions"][0]["class"] == "=cmd()"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("text/html;q=0.9, application/jsonlines;q=0.5", "application/jsonlines"),
        ("text/csv;q=0.1, application/json", "application/json"),
    ],
)
def test_accept_is_negotiated(server: Server, accept: str, content_type: str) -> None:
    assert server.invoke(RED, Accept=accept).headers["content-type"] == content_type


def test_accept_of_something_else_is_406(server: Server) -> None:
    assert server.invoke(RED, Accept="text/html").status == 406


def test_top_k_from_each_channel(server: Server) -> None:
    def count(reply: object) -> int:
        return len(reply.json()["predictions"][0]["top"])  # type: ignore[attr-defined]

    assert count(server.invoke(RED, query="?top_k=1")) == 1
    assert count(server.invoke(RED, query="?top_k=all")) == 3
    assert count(server.invoke(RED, X_Amzn_SageMaker_Custom_Attributes="tenant=7;top_k=2")) == 2
    assert count(server.invoke_json({"instances": [b64(RED)], "parameters": {"top_k": 1}})) == 1


@pytest.mark.parametrize("top_k", ["0", "-1", "many", "1.5", "99999999999999999999"])
def test_a_senseless_top_k_is_400(server: Server, top_k: str) -> None:
    assert server.invoke(RED, query=f"?top_k={top_k}").status == 400


def test_custom_attributes_and_inference_id_pass_through(server: Server) -> None:
    reply = server.invoke(
        RED, X_Amzn_SageMaker_Custom_Attributes="trace=42", X_Amzn_SageMaker_Inference_Id="order-7"
    )
    assert reply.headers["x-amzn-sagemaker-custom-attributes"] == "trace=42"
    assert reply.headers["x-amzn-sagemaker-inference-id"] == "order-7"
    refused = server.invoke(b"", X_Amzn_SageMaker_Inference_Id="order-8")
    assert refused.headers["x-amzn-sagemaker-inference-id"] == "order-8"


def test_abstains_below_the_threshold_of_the_model(tmp_path: Path) -> None:
    grey = photo("grey", kind="PNG")
    with Server(write_toy(tmp_path / "toy", abstain_threshold=0.5), tmp_path, *FIXED) as server:
        assert server.invoke(grey).json()["predictions"][0]["abstain"] is True
        assert server.invoke(RED).json()["predictions"][0]["abstain"] is False


@functools.cache
def _photos() -> dict[str, bytes]:
    """Every kind of photo that the evaluation path defines an answer for."""
    rng = np.random.default_rng(7)
    noise = Image.fromarray(rng.integers(0, 255, (90, 120, 3), np.uint8)).resize((240, 180))
    exif = Image.Exif()
    exif[0x0112] = 6
    grey16 = Image.fromarray((np.linspace(0, 65535, 64 * 64).reshape(64, 64)).astype(np.uint16))
    alpha = noise.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    palette = alpha.convert("P")
    palette.info["transparency"] = 3
    return {
        "rotated by EXIF": encode(noise, exif=exif),
        "greyscale": encode(noise.convert("L")),
        "CMYK": encode(noise.convert("CMYK")),
        "16-bit": encode(grey16, "PNG"),
        "palette with alpha": encode(palette, "PNG", transparency=3),
        "alpha": encode(alpha, "WEBP", lossless=True),
        "progressive": encode(noise, progressive=True),
        "huge": encode(noise.resize((4000, 3000)), quality=60),
        "animated": encode(noise, "GIF", save_all=True, append_images=[noise.rotate(90)]),
        "tiny": photo("red", (1, 1), "PNG"),
        "narrow": photo("blue", (3, 900), "PNG"),
    }


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.open(write_toy(tmp_path_factory.mktemp("predictor")), threads=1)


@pytest.mark.parametrize("kind", _photos())
def test_every_kind_of_photo_gets_the_answer_of_the_evaluation_path(
    server: Server, predictor: Predictor, kind: str
) -> None:
    data = _photos()[kind]
    expected = predictor.predict([data])[0]
    reply = server.invoke(data, "application/x-image", "?top_k=all")
    assert reply.status == 200, reply.body
    top = {entry["class"]: entry["probability"] for entry in reply.json()["predictions"][0]["top"]}
    np.testing.assert_allclose([top[name] for name in predictor.classes], expected, atol=1e-5)
