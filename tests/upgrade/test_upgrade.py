"""State left by release 8aecd8f is used, finished and served by this one.

`from_8aecd8f/` was made by that release: `left_behind.tar.gz` holds the state folder of a local_aws with a data set
version, a bundle and an endpoint in service, and the photos of the version; `triggers.json` the serialized triggers
of deferred tasks.
"""

from __future__ import annotations

import importlib
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ml_pipeline.dataset.upload import upload
from model_code.predict.predictor import Predictor
from tests.local_aws.cloud import eventually
from tests.local_aws.conftest import Cloud
from tests.model_code.serve.toy_bundle import photo

OLD = Path(__file__).with_name("from_8aecd8f")
IMAGES = """schema_version = 1

[images.serving]
pattern = "*/serving:*"
contracts = ["server"]
interpreter = "python"
argv = ["python", "-m", "model_code.serve", "/opt/ml/model"]
"""


def document(name: str) -> Any:
    return json.loads((OLD / name).read_text())


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked folder: `state` and `photos`."""
    folder = tmp_path_factory.mktemp("left-behind")
    with tarfile.open(OLD / "left_behind.tar.gz") as archive:
        archive.extractall(folder)  # our own archive
    return folder


@pytest.fixture(scope="module")
def cloud(left_behind: Path) -> Iterator[Cloud]:
    """This release's local_aws on the old state folder."""
    images = left_behind / "images.toml"
    images.write_text(IMAGES)
    cloud = Cloud(left_behind / "state", ("--images", str(images))).start()
    yield cloud
    cloud.stop()


def test_the_endpoint_comes_back_and_answers_the_same(cloud: Cloud) -> None:
    def status() -> str:
        return str(cloud.sagemaker.describe_endpoint(EndpointName="colours")["EndpointStatus"])

    assert eventually(lambda: status() != "Creating" and status(), 60) == "InService"
    answer = cloud.client("sagemaker-runtime").invoke_endpoint(
        EndpointName="colours", ContentType="image/jpeg", Body=photo("red")
    )
    now, before = json.loads(answer["Body"].read()), document("answer.json")
    (prediction,), (expected,) = now["predictions"], before["predictions"]
    assert prediction["class"] == expected["class"]
    assert prediction["probability"] == pytest.approx(expected["probability"], abs=1e-5)
    assert now["dataset"] == before["dataset"]
    assert now["model"]["version"] == before["model"]["version"]


def test_the_data_set_version_is_found_unchanged(cloud: Cloud, left_behind: Path) -> None:
    before = document("upload.json")
    again = upload(cloud.s3, "photos", "colours", str(left_behind / "photos"), seed=7)
    assert not again["changed"]
    assert again["version"] == before["version"]
    assert again["counts"] == before["counts"]
    assert again["new_shards"] == 0


def test_the_next_version_keeps_the_splits_and_uploads_what_is_new(
    cloud: Cloud, left_behind: Path, tmp_path: Path
) -> None:
    before = document("upload.json")
    photos = tmp_path / "photos"
    shutil.copytree(left_behind / "photos", photos)
    Image.linear_gradient("L").convert("RGB").resize((48, 40)).save(photos / "red" / "new.jpg")
    following = upload(cloud.s3, "photos", "colours", str(photos), seed=7)
    assert following["changed"]
    assert following["parent"] == before["version"]
    assert sum(following["counts"].values()) == sum(before["counts"].values()) + 1
    assert all(following["counts"][split] >= photos for split, photos in before["counts"].items())
    assert following["new_shards"] < before["new_shards"]


def test_the_bundle_opens_and_passes_its_golden_replay(tmp_path: Path) -> None:
    refused: list[str] = []
    predictor = Predictor.open(OLD / "model.tar.gz", workdir=tmp_path, on_fallback=refused.append)
    assert not refused
    assert predictor.card.classes == ("red", "green", "blue")


@pytest.mark.parametrize(("path", "arguments"), document("triggers.json"))
def test_a_deferred_task_finds_its_trigger(path: str, arguments: dict[str, Any]) -> None:
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**arguments)
    kept, fields = trigger.serialize()
    assert kept == path
    assert {**fields, **arguments} == fields
