"""Weights from wherever they are, checked, stored once, and never waited for without end."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from ml_pipeline.dataset import weights
from ml_pipeline.dataset.weights import (
    WeightsError,
    file_name_checksum,
    store_model,
    store_weights,
    teacher_of,
)
from tests.model_code.serve.toy_bundle import write_toy_archive
from tests.web_server import sends, web_server

BUCKET = "photos"


def state_dict() -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({"layer.weight": torch.zeros(2, 2)}, buffer)
    return buffer.getvalue()


BODY = state_dict()
SHA256 = hashlib.sha256(BODY).hexdigest()
STORED = f"s3://{BUCKET}/weights/{SHA256}"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("s3", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        client.create_bucket(Bucket=BUCKET)
        yield client


def stored(s3: Any) -> bytes:
    return bytes(s3.get_object(Bucket=BUCKET, Key=f"weights/{SHA256}")["Body"].read())


@pytest.mark.parametrize("form", ["{path}", "file://{path}"])
def test_a_local_file(s3: Any, tmp_path: Path, form: str) -> None:
    path = tmp_path / "my weights.pth"
    path.write_bytes(BODY)
    result = store_weights(s3, BUCKET, form.format(path=path), "resnet18")
    assert (result["uri"], result["sha256"], result["bytes"]) == (STORED, SHA256, len(BODY))
    assert result["uploaded"] == len(BODY)
    assert stored(s3) == BODY
    assert store_weights(s3, BUCKET, str(path), "resnet18")["uploaded"] == 0


def test_no_weights(s3: Any) -> None:
    assert store_weights(s3, BUCKET, "none", "resnet18")["uri"] is None


def test_an_object_in_s3(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="mine/w.pth", Body=BODY)
    assert store_weights(s3, BUCKET, f"s3://{BUCKET}/mine/w.pth", "resnet18")["uri"] == STORED
    with pytest.raises(WeightsError, match=r"mine/none\.pth"):
        store_weights(s3, BUCKET, f"s3://{BUCKET}/mine/none.pth", "resnet18")


def test_an_address(s3: Any) -> None:
    with web_server({"/w.pth": sends(BODY)}) as address:
        result = store_weights(s3, BUCKET, f"{address}/w.pth#sha256={SHA256}", "resnet18")
        assert (result["uri"], result["source"]) == (STORED, f"{address}/w.pth")
        with pytest.raises(WeightsError, match="sha256 checksum"):
            store_weights(s3, BUCKET, f"{address}/w.pth#sha256={'0' * 64}", "resnet18")
        with pytest.raises(WeightsError, match="404"):
            store_weights(s3, BUCKET, f"{address}/other.pth", "resnet18")


def test_a_web_page_is_no_weights_file(s3: Any) -> None:
    with (
        web_server({"/w.pth": sends(b"<html>please log in</html>")}) as address,
        pytest.raises(WeightsError, match="neither a torch state_dict file nor safetensors"),
    ):
        store_weights(s3, BUCKET, f"{address}/w.pth", "resnet18")


@pytest.mark.parametrize("wanted", ["/no/such/file.pth", "ftp://host/w.pth", "imagenet21k"])
def test_mistakes_name_what_works(s3: Any, wanted: str) -> None:
    with pytest.raises(WeightsError, match="'imagenet', or 'none'"):
        store_weights(s3, BUCKET, wanted, "resnet18")


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        (None, ("", "none")),
        ("", ("", "none")),
        (
            "arn:aws:sagemaker:r:1:model-package/dogs/3",
            ("arn:aws:sagemaker:r:1:model-package/dogs/3", "imagenet"),
        ),
        ("timm:resnet18", ("timm:resnet18", "imagenet")),
        ("resnet50=s3://b/w=1.pth", ("resnet50", "s3://b/w=1.pth")),
    ],
)
def test_a_teacher_is_an_architecture_and_its_weights(teacher: str | None, expected: tuple[str, str]) -> None:
    assert teacher_of(teacher) == expected


def test_the_network_of_a_registered_model_becomes_weights(s3: Any, tmp_path: Path) -> None:
    archive = write_toy_archive(tmp_path)
    s3.upload_file(str(archive), BUCKET, "jobs/train-1/output/model.tar.gz")
    stored = store_model(s3, BUCKET, f"s3://{BUCKET}/jobs/train-1/output/model.tar.gz")
    assert stored["architecture"] == "toy"
    network = (tmp_path / "bundle/model.safetensors").read_bytes()
    assert stored["sha256"] == hashlib.sha256(network).hexdigest()
    assert s3.get_object(Bucket=BUCKET, Key=f"weights/{stored['sha256']}")["Body"].read() == network
    s3.put_object(Bucket=BUCKET, Key="broken.tar.gz", Body=b"PK")
    with pytest.raises(WeightsError, match=r"broken\.tar\.gz"):
        store_model(s3, BUCKET, f"s3://{BUCKET}/broken.tar.gz")


def test_torchvisions_weights_are_downloaded_once(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    with web_server({f"/models/net-{SHA256[:8]}.pth": sends(BODY)}) as address:

        def url(architecture: str, name: str) -> str:
            asked.append((architecture, name))
            return f"{address}/models/net-{SHA256[:8]}.pth"

        monkeypatch.setattr(weights, "weights_url", url)
        result = store_weights(s3, BUCKET, "imagenet", "resnet18")
    assert (result["uri"], result["uploaded"]) == (STORED, len(BODY))
    # The server is gone: a second run needs no network.
    again = store_weights(s3, BUCKET, "ImageNet", "resnet18")
    assert (again["uri"], again["uploaded"]) == (STORED, 0)
    store_weights(s3, BUCKET, "IMAGENET1K_V1", "resnet50")
    assert asked == [("resnet18", "DEFAULT"), ("resnet18", "DEFAULT"), ("resnet50", "IMAGENET1K_V1")]


def test_torchvisions_checksum_is_checked(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server({"/net-00000000.pth": sends(BODY)}) as address:
        monkeypatch.setattr(weights, "weights_url", lambda *_: f"{address}/net-00000000.pth")
        with pytest.raises(WeightsError, match="expected 00000000"):
            store_weights(s3, BUCKET, "imagenet", "resnet18")


def test_torchvision_says_where_its_weights_are() -> None:
    url = weights.weights_url("mobilenet_v2", "IMAGENET1K_V1")
    assert url == "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"
    checksum = file_name_checksum(url)
    assert checksum is not None
    assert checksum.digits == "b0353104"


def test_names_that_torchvision_has_not_list_what_it_has() -> None:
    from model_code.networks.pretrained import weights_url

    with pytest.raises(ValueError, match="IMAGENET1K_V1, IMAGENET1K_V2"):
        weights_url("mobilenet_v2", "IMAGENET1K_V9")
    with pytest.raises(ValueError, match="resnet18"):
        weights_url("resnet19")


def test_without_a_network_the_message_names_the_way_out(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "weights_url", lambda *_: "http://127.0.0.1:9/net-00000000.pth")
    with pytest.raises(WeightsError, match=r"cannot be reached.*without a network, give a state_dict file"):
        store_weights(s3, BUCKET, "imagenet", "resnet18")


@pytest.mark.parametrize(
    ("name", "digits"),
    [("resnet18-f37072fd.pth", "f37072fd"), ("weights.pth", None), ("model-v2.pth", None)],
)
def test_only_hexadecimal_endings_are_checksums(name: str, digits: str | None) -> None:
    checksum = file_name_checksum(f"https://host/{name}")
    assert (checksum and checksum.digits) == digits
