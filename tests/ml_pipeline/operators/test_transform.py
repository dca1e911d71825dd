"""Batch transform: the model that predicts, and the refusals before a job is paid."""

from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.operators.transform import TransformOperator
from ml_pipeline.registry import packages as registry
from tests.ml_pipeline.operators.instance import Instance, context, deferred
from tests.simulator import runs
from tests.simulator.world import World

PHOTOS = "batch/p/photos/"


def operator(group: str = "") -> TransformOperator:
    staged: dict[str, Any] = {"photos_uri": f"s3://bucket/{PHOTOS}", "photos": 1}
    return TransformOperator(task_id="predict", group=group, staged=staged)


def champions(world: World, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the data sets cats and dogs exist, and `names` have a champion each."""
    world.objects |= {f"datasets/{name}/latest.json": b"{}" for name in ("cats", "dogs")}
    world.objects[f"{PHOTOS}a.jpg"] = b"a photo"
    packages = {
        name: registry.Package(
            f"arn/{name}/1", "Approved", f"s3://bucket/jobs/{name}/output/model.tar.gz", "image",
            {"dataset_name": name},
        )
        for name in names
    }  # fmt: skip
    monkeypatch.setattr(registry, "champion", lambda _, group: packages.get(group))
    listed = world.s3_list_objects_v2

    def folders(**request: Any) -> dict[str, Any]:
        if not request.pop("Delimiter", None):
            return listed(**request)
        return {"CommonPrefixes": [{"Prefix": f"datasets/{name}/"} for name in ("cats", "dogs")]}

    monkeypatch.setattr(world, "s3_list_objects_v2", folders)


@pytest.mark.parametrize("group", ["", "dogs"])
def test_the_only_champion_predicts(world: World, monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    champions(world, monkeypatch, "dogs")
    instance = Instance("predict")
    name = deferred(operator(group), instance)["job_name"]
    assert world.jobs[name].name == name
    assert [model for model in world.models if model.startswith("dogs")]
    assert f"batch/{name}/photos.manifest" in world.objects


@pytest.mark.parametrize(
    ("group", "names", "words"),
    [
        ("", (), "no data set has an approved model: run train_and_deploy"),
        (
            "",
            ("cats", "dogs"),
            "several data sets have an approved model: give dataset_name, one of cats, dogs",
        ),
        (
            "cats",
            ("dogs",),
            "the data set 'cats' has no approved model: run train_and_deploy with dataset_name=cats",
        ),
    ],
)
def test_without_one_champion_nothing_is_started(
    world: World, monkeypatch: pytest.MonkeyPatch, group: str, names: tuple[str, ...], words: str
) -> None:
    champions(world, monkeypatch, *names)
    with pytest.raises(ValueError, match=words):
        operator(group).execute(context(Instance("predict")))
    assert not world.jobs


def test_photos_that_cannot_be_predicted_start_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    champions(world, monkeypatch, "dogs")
    world.objects[f"{PHOTOS}a.jpg"] = b""
    with pytest.raises(ValueError, match="can be predicted: they are empty or too large"):
        operator().execute(context(Instance("predict")))
    assert not world.jobs


def test_the_result_leads_to_the_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    champions(world, monkeypatch, "dogs")
    described = {
        "TransformJobName": "predict-1",
        "TransformOutput": {"S3OutputPath": "s3://bucket/batch/predict-1/answers/"},
        "ModelName": runs.ENDPOINT,
    }
    assert operator().result(None, described)["output_uri"] == "s3://bucket/batch/predict-1/answers/"  # type: ignore[arg-type]
