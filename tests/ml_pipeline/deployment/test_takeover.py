"""No endpoint is taken over silently: the names of a run, and what it would replace."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from ml_pipeline.dag import params
from ml_pipeline.dataset.photos import dataset_name_of
from ml_pipeline.deployment import status, takeover
from ml_pipeline.deployment.takeover import EndpointTaken, Served, Target
from ml_pipeline.settings import Settings
from model_code.data.manifest import PhotoRow
from model_code.data.shards import Split
from tests.local_aws.cloud import cloud, unique
from tests.ml_pipeline.deployment.stage import CONTEXT, Stage, stage
from tests.ml_pipeline.manifests import manifest

__all__ = ["cloud", "stage"]
DEFAULTS: dict[str, Any] = {name: param.value for name, param in params.train_and_deploy().items()}


def photos(folder: Path, *classes: str) -> str:
    """A folder with one file per class, whose bytes are the first letter of the class."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        (folder / name / "1.jpg").write_bytes(name[:1].encode())
    return str(folder)


def serve(stage: Stage, dataset: str, classes: tuple[str, ...]) -> None:
    """Deploy a model that was trained on one photo per class, see `photos`."""
    made = manifest(dataset, [], classes)
    folder = f"datasets/{dataset}/versions/{made.version}"
    rows = [
        PhotoRow(f"k{number}", sha256(label[:1].encode()).hexdigest(), label, Split.TRAIN, "0" * 64, None)
        for number, label in enumerate(classes)
    ]
    put(stage, f"{folder}/manifest.json", made.to_json())
    put(stage, f"{folder}/photos.jsonl", "".join(f"{row.to_line()}\n" for row in rows))
    stage.deploy(stage.package(unique("v"), dataset_name=dataset, dataset_version=made.version))


def put(stage: Stage, key: str, body: str) -> None:
    stage.s3.put_object(Bucket=stage.made.bucket, Key=key, Body=body.encode())


def settle(stage: Stage, **changes: Any) -> Target:
    given = {**DEFAULTS, "endpoint_name": stage.made.endpoint, **changes}
    return takeover.target(stage.sagemaker, stage.s3, Settings.load(), given)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("/photos/Dog Breeds/", "dog-breeds"),
        ("s3://team/photos/dogs", "dogs"),
        ("s3://team-photos", "team-photos"),
        ("/photos/" + "x" * 60, "x" * 40),
        ("/photos/\u72ac", "photos"),
    ],
)
def test_a_data_set_is_named_after_its_folder(data: str, name: str) -> None:
    assert dataset_name_of(data) == name


def test_no_photos_have_no_name() -> None:
    with pytest.raises(ValueError, match="ML_PIPELINE_DEFAULTS"):
        dataset_name_of(" ")


def test_a_run_that_names_nothing_deploys_to_an_endpoint_of_its_data_set(
    stage: Stage, tmp_path: Path
) -> None:
    data = photos(tmp_path / "Birds of Prey", "hawk", "owl")
    given = {**DEFAULTS, "data": data}
    found = takeover.target(stage.sagemaker, stage.s3, Settings.load(), given)
    assert found == Target("birds-of-prey", "birds-of-prey", None)


def test_the_endpoint_of_another_data_set_is_not_taken_over(stage: Stage, tmp_path: Path) -> None:
    serve(stage, "dogs", ("collie", "poodle"))
    live = status.describe(stage.sagemaker, stage.made.endpoint)
    found = takeover.served(stage.sagemaker, stage.s3, live)
    assert found
    assert found.dataset_name == "dogs"
    data = photos(tmp_path / "cats", "siamese", "sphynx")
    with pytest.raises(
        EndpointTaken, match=r"serves the data set 'dogs', not 'cats': choose another endpoint_name"
    ):
        settle(stage, data=data)
    told = settle(stage, data=data, replace_endpoint=True).replaces
    assert told
    assert "serves the data set 'dogs'" in told
    # plan looked before this run's turn: under the lock it is looked at again.
    cats = stage.package(unique("v"), dataset_name="cats", dataset_version="1")
    with pytest.raises(EndpointTaken, match="set replace_endpoint"):
        stage.operator(cats).execute(CONTEXT)
    with pytest.raises(TaskDeferred):
        stage.operator(cats, replace_endpoint=True).execute(CONTEXT)


def test_classes_may_be_added_renamed_and_merged_but_not_lost(stage: Stage, tmp_path: Path) -> None:
    serve(stage, "dogs", ("collie", "poodle", "setter"))
    kept = ("collie", "poodle", "setter")
    assert settle(stage, data=photos(tmp_path / "a" / "dogs", *kept, "boxer")).replaces is None
    # The bytes of "c_renamed" are those of "collie".
    renamed = photos(tmp_path / "b" / "dogs", "c_renamed", "poodle", "setter")
    assert settle(stage, data=renamed).replaces is None
    lost = photos(tmp_path / "c" / "dogs", "poodle", "setter", "boxer")
    with pytest.raises(EndpointTaken, match=r"serves 1 classes that are not at .*'collie'"):
        settle(stage, data=lost)
    other = photos(tmp_path / "d" / "dogs", "x", "y")
    with pytest.raises(EndpointTaken, match="serves 3 classes"):
        settle(stage, data=other)


def test_an_endpoint_of_the_old_default_stays_with_its_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "describe", lambda *_: {"EndpointStatus": "InService"})
    monkeypatch.setattr(takeover, "served", lambda *_: Served("dogs", "1"))
    assert takeover.default_endpoint(None, None, "dogs") == "photo-classifier"
    assert takeover.default_endpoint(None, None, "cats") == "cats"


def test_billed_endpoints_are_listed_with_what_they_serve(stage: Stage) -> None:
    serve(stage, "dogs", ("collie", "poodle"))
    (found,) = (
        row
        for row in takeover.billed(stage.sagemaker, stage.s3)
        if row["endpoint_name"] == stage.made.endpoint
    )
    assert (found["dataset_name"], found["instance_type"], found["instance_count"]) == (
        "dogs",
        "ml.m5.large",
        1,
    )


def test_a_takedown_needs_a_name(stage: Stage) -> None:
    serve(stage, "dogs", ("collie", "poodle"))
    with pytest.raises(ValueError, match=rf"give the endpoint, one of .*{stage.made.endpoint}"):
        takeover.named(stage.sagemaker, "")
    assert takeover.named(stage.sagemaker, "dogs") == "dogs"


def test_an_endpoint_of_another_project_is_not_taken_over(stage: Stage) -> None:
    name = unique("theirs")
    live = {"EndpointStatus": "InService", "EndpointName": name, "EndpointConfigName": name}
    assert takeover.conflict_of(stage.sagemaker, stage.s3, live, "dogs") == (
        f"endpoint {name} serves a model that this project did not train"
    )
