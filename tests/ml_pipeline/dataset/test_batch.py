"""Batch prediction on a local_aws that really asks the model: which objects it asks about, and what it leaves."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from ml_pipeline.dataset import batch
from ml_pipeline.operators.transform import TransformOperator
from ml_pipeline.registry import packages as registry
from ml_pipeline.settings import Settings, airflow_connection
from tests.local_aws.cloud import ROLE, Cloud, cloud, unique
from tests.local_aws.serving import SERVING_IMAGE, pack

__all__ = ["cloud"]

CONTEXT = {
    "ti": SimpleNamespace(
        dag_id="batch_predict", run_id="run", task_id="predict", map_index=-1, xcom_push=lambda **_: None
    )
}


async def event_of(waiting: TaskDeferred) -> Any:
    return (await anext(waiting.trigger.run())).payload


def test_only_photos_are_asked_about_by_a_model_that_carries_our_tags(
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
        "in/labels.csv": b"bad",
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
    assert staged["photos"] == 2
    operator = TransformOperator(task_id="predict", group=group, staged=staged)
    with pytest.raises(TaskDeferred) as waiting:
        operator.execute(CONTEXT)
    result = operator.complete(CONTEXT, asyncio.run(event_of(waiting.value)))

    prefix = f"batch/{result['transform_job_name']}/answers/"
    found = cloud.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    assert [row["Key"].removeprefix(prefix) for row in found] == ["b.PNG.out", "dogs/a.jpg.out"]
    answer = cloud.s3.get_object(Bucket=bucket, Key=found[1]["Key"])["Body"].read()
    assert json.loads(answer)["body"] == "a"
    arn = cloud.sagemaker.describe_model(ModelName=result["model_name"])["ModelArn"]
    assert {"Key": "project", "Value": "ml-pipeline"} in cloud.sagemaker.list_tags(ResourceArn=arn)["Tags"]


def test_other_photos_are_another_job() -> None:
    def name_part(photos_uri: str) -> Any:
        operator = TransformOperator(task_id="predict", group="dogs", staged={"photos_uri": photos_uri})
        return operator.identity(lambda name, tags: {"TransformJobName": name})

    assert name_part("s3://bucket/a/") == name_part("s3://bucket/a/")
    assert name_part("s3://bucket/a/") != name_part("s3://bucket/b/")
