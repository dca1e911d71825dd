"""Batch prediction on a local_aws that really asks the model: which objects it asks about, and what it leaves."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from botocore.exceptions import ClientError

from ml_pipeline.aws.downloads import Downloads
from ml_pipeline.aws.transfers import Transfers
from ml_pipeline.dataset import batch
from ml_pipeline.operators.transform import TransformOperator
from ml_pipeline.registry import packages as registry
from ml_pipeline.settings import Settings, airflow_connection
from tests.local_aws.cloud import ROLE, Cloud, cloud, unique
from tests.local_aws.serving import SERVING_IMAGE, pack
from tests.ml_pipeline.fake_sagemaker import client_error

__all__ = ["cloud"]

CONTEXT = {
    "ti": SimpleNamespace(
        dag_id="batch_predict", run_id="run", task_id="predict", map_index=-1, xcom_push=lambda **_: None
    )
}


async def event_of(waiting: TaskDeferred) -> Any:
    return (await anext(waiting.trigger.run())).payload


def test_every_visible_file_is_predicted_by_a_model_that_carries_our_tags(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, group = cloud.bucket(), unique("group")
    monkeypatch.setenv("LOCAL_AWS_URL", cloud.url)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", airflow_connection(cloud.url))
    monkeypatch.setenv("ML_PIPELINE_BUCKET", bucket)
    monkeypatch.setenv("ML_PIPELINE_ROLE_ARN", ROLE)
    objects = {
        "toy/model.tar.gz": pack("1"),
        "in/dogs/a.jpg": b"a",
        "in/b.PNG": b"b",
        "in/.hidden": b"bad",
        "in/empty.jpg": b"",
        "in/no_photo.csv": b"refuse",
    }
    for key, body in objects.items():
        cloud.s3.put_object(Bucket=bucket, Key=key, Body=body)
    uri = f"s3://{bucket}/toy/model.tar.gz"
    registry.ensure_group(cloud.sagemaker, group, "toys")
    request = registry.model_package(
        group, uri, SERVING_IMAGE, "ml.m5.large", uri, {"toy": "1"}, approved=True
    )
    cloud.sagemaker.create_model_package(**request)

    staged = batch.stage(cloud.s3, Settings.load(), f"s3://{bucket}/in")
    assert staged["photos"] == 4
    operator = TransformOperator(task_id="predict", group=group, staged=staged)
    with pytest.raises(TaskDeferred) as waiting:
        operator.execute(CONTEXT)
    result = operator.complete(CONTEXT, asyncio.run(event_of(waiting.value)))

    prefix = f"batch/{result['transform_job_name']}/answers/"
    found = cloud.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    assert [row["Key"].removeprefix(prefix) for row in found] == [
        "b.PNG.out",
        "dogs/a.jpg.out",
        "no_photo.csv.out",
    ]
    answer = cloud.s3.get_object(Bucket=bucket, Key=found[1]["Key"])["Body"].read()
    assert json.loads(answer)["body"] == "a"
    arn = cloud.sagemaker.describe_model(ModelName=result["model_name"])["ModelArn"]
    assert {"Key": "project", "Value": "ml-pipeline"} in cloud.sagemaker.list_tags(ResourceArn=arn)["Tags"]


ANSWER = {
    "predictions": [
        {
            "class": "=cmd()",
            "probability": 0.9,
            "abstain": False,
            "top": [{"class": "=cmd()", "probability": 0.9}, {"class": "b", "probability": 0.1}],
        }
    ]
}
REFUSED = {"predictions": [{"error": {"reason": "photo_damaged", "message": "damaged or truncated"}}]}


def test_a_photo_that_cannot_be_read_is_a_row_with_its_reason(cloud: Cloud) -> None:
    bucket = cloud.bucket()
    photos = {"+a.jpg": b"a", "broken.jpg": b"b", "empty.jpg": b"", "lost.jpg": b"c", ".hidden": b"d"}
    for name, body in photos.items():
        cloud.s3.put_object(Bucket=bucket, Key=f"in/{name}", Body=body)
    for name, answer in (("+a.jpg", ANSWER), ("broken.jpg", REFUSED)):
        cloud.s3.put_object(Bucket=bucket, Key=f"out/{name}.out", Body=json.dumps(answer).encode())
    tabled = batch.table(cloud.s3, f"s3://{bucket}/out/", f"s3://{bucket}/in/", f"s3://{bucket}/table.csv")
    assert (tabled["photos"], tabled["unreadable"], tabled["classes"]) == (1, 3, {"=cmd()": 1})
    body = cloud.s3.get_object(Bucket=bucket, Key="table.csv")["Body"].read().decode()
    rows = {row["photo"]: row for row in csv.DictReader(io.StringIO(body))}
    assert rows.keys() == {"'+a.jpg", "broken.jpg", "empty.jpg", "lost.jpg"}
    # A spreadsheet would execute a cell that begins with an equals sign.
    assert rows["'+a.jpg"]["class"] == "'=cmd()"
    assert rows["broken.jpg"]["reason"] == "damaged or truncated"
    assert rows["empty.jpg"]["reason"] == "the file is empty"
    assert rows["lost.jpg"]["reason"] == "the job left no answer"


def test_answers_of_an_earlier_release_are_still_read() -> None:
    (row,) = batch.rows_of([("a.jpg", ANSWER)])
    assert (row["class"], row["second_class"], row["reason"]) == ("=cmd()", "b", "")


@pytest.mark.parametrize(
    ("answer", "cells"),
    [
        ({"unknown": True, "unknown_score": 0.97}, ("1", "0.97")),
        ({"unknown": False, "unknown_score": 0.2}, ("0", "0.2")),
        ({"unknown": None, "unknown_score": None}, ("", "")),  # a model of an older release
        ({}, ("", "")),
    ],
    ids=["unknown", "known", "no score", "older server"],
)
def test_the_table_says_which_photos_are_unlike_every_class(
    answer: dict[str, Any], cells: tuple[str, str]
) -> None:
    rows = batch.rows_of([("a.jpg", {"predictions": [{**ANSWER["predictions"][0], **answer}]})])
    (row,) = csv.DictReader(io.StringIO(batch.as_csv(rows)))
    assert (row["unknown"], row["unknown_score"]) == cells


def test_other_photos_are_another_job() -> None:
    def name_part(photos_uri: str) -> Any:
        operator = TransformOperator(task_id="predict", group="dogs", staged={"photos_uri": photos_uri})
        return operator.identity(lambda name, tags: {"TransformJobName": name})

    assert name_part("s3://bucket/a/") == name_part("s3://bucket/a/")
    assert name_part("s3://bucket/a/") != name_part("s3://bucket/b/")


def test_credentials_that_expire_on_the_way_cost_no_answer(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, read, expired = cloud.bucket(), Downloads.read, iter(range(3))
    names = [f"{number}.jpg" for number in range(20)]
    answer = {"class": "cat", "probability": 0.9, "abstain": False, "top": []}
    for name in names:
        cloud.s3.put_object(Bucket=bucket, Key=f"out/{name}.out", Body=json.dumps(answer).encode())

    def expiring(downloads: Downloads, uri: str) -> bytes:
        if next(expired, None) is not None:
            raise client_error("ExpiredToken", "expired", "GetObject")
        return read(downloads, uri)

    monkeypatch.setattr(Downloads, "read", expiring)
    tabled = batch.table(cloud.s3, f"s3://{bucket}/out/", None, f"s3://{bucket}/table.csv")
    text = cloud.s3.get_object(Bucket=bucket, Key="table.csv")["Body"].read().decode()
    assert (tabled["photos"], tabled["classes"]) == (20, {"cat": 20})
    assert [row["photo"] for row in csv.DictReader(io.StringIO(text))] == sorted(names)


def test_a_folder_is_copied_once_by_many_requests(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_AWS_URL", cloud.url)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", airflow_connection(cloud.url))
    monkeypatch.setenv("ML_PIPELINE_BUCKET", cloud.bucket())
    monkeypatch.setenv("ML_PIPELINE_ROLE_ARN", ROLE)
    written: list[str] = []
    write, refused = Transfers.write, iter([False] * 40 + [True])

    def watched(transfers: Transfers, uri: str, path: Path) -> None:
        if next(refused, False):
            raise client_error("AccessDenied", "not today", "PutObject")
        write(transfers, uri, path)
        written.append(path.name)

    monkeypatch.setattr(Transfers, "write", watched)
    (tmp_path / "dogs").mkdir()
    for number in range(100):
        (tmp_path / "dogs" / f"{number}.jpg").write_bytes(b"%d" % number)
    (tmp_path / ".hidden").write_bytes(b"x")
    with pytest.raises(ClientError, match="not today"):
        batch.stage(cloud.s3, Settings.load(), str(tmp_path))
    kept = len(written)
    assert 0 < kept < 100
    staged = batch.stage(cloud.s3, Settings.load(), str(tmp_path))
    assert (staged["photos"], len(written)) == (100, 100)
    assert batch.stage(cloud.s3, Settings.load(), str(tmp_path)) == staged
    assert sorted(written) == sorted(f"{number}.jpg" for number in range(100))
    assert dict(batch.files(cloud.s3, staged["photos_uri"])).keys() == {f"dogs/{n}.jpg" for n in range(100)}
