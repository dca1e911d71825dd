"""Deployments on a local_aws, run as Airflow would run them."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import airflow.sdk
import pytest
from airflow.sdk.exceptions import TaskDeferred
from botocore.exceptions import ClientError

from ml_pipeline.operators.deploy import DeployEndpointOperator
from ml_pipeline.registry import packages as registry
from ml_pipeline.requests.types import Deployed
from ml_pipeline.settings import airflow_connection
from tests.local_aws.cloud import ROLE, Cloud, cloud
from tests.local_aws.serving import SERVING_IMAGE, Deployment, pack
from tests.ml_pipeline.manifests import manifest

__all__ = ["CONTEXT", "LAST_TRY", "TI", "Stage", "cloud", "stage"]


class Stage:
    """Packages, and a run of the operator as Airflow would run it."""

    def __init__(self, cloud: Cloud) -> None:
        self.made = Deployment(cloud)
        self.sagemaker, self.s3 = cloud.sagemaker, cloud.s3
        self.alarms = cloud.client("cloudwatch")
        self.scaling = cloud.client("application-autoscaling")

    def package(self, version: str, **metadata: str) -> dict[str, str]:
        """Register a model that answers with its version."""
        key = f"models/{version}/model.tar.gz"
        self.s3.put_object(Bucket=self.made.bucket, Key=key, Body=pack(version))
        group = self.made.endpoint
        registry.ensure_group(self.sagemaker, group, "toys")
        uri = f"s3://{self.made.bucket}/{key}"
        request = registry.model_package(
            group, uri, SERVING_IMAGE, "ml.m5.large", uri, {"toy": version, **metadata}, approved=True
        )
        return {"model_package_arn": self.sagemaker.create_model_package(**request)["ModelPackageArn"]}

    def operator(self, package: dict[str, str], **more: Any) -> DeployEndpointOperator:
        given = {"endpoint_name": self.made.endpoint, "package": package, "bake_seconds": 0, **more}
        return DeployEndpointOperator(task_id="deploy", **given)

    def begin(self, package: dict[str, str], **more: Any) -> tuple[DeployEndpointOperator, TaskDeferred]:
        """Start a deployment up to the point where it waits."""
        operator = self.operator(package, **more)
        with pytest.raises(TaskDeferred) as waiting:
            operator.execute(CONTEXT)
        return operator, waiting.value

    def end(self, operator: DeployEndpointOperator, waiting: TaskDeferred) -> Deployed:
        """Wait as the triggerer does, and resume."""

        async def event() -> Any:
            async for fired in waiting.trigger.run():
                return fired.payload
            return None

        result: Deployed = getattr(operator, waiting.method_name)(CONTEXT, asyncio.run(event()))
        return result

    def deploy(self, package: dict[str, str], **more: Any) -> Deployed:
        operator, waiting = self.begin(package, **more)
        while True:
            try:
                return self.end(operator, waiting)
            except TaskDeferred as further:
                waiting = further

    def status(self, package: dict[str, str]) -> str:
        return registry.describe(self.sagemaker, package["model_package_arn"]).status

    def photo(self, content: bytes, **fields: str) -> tuple[dict[str, str], dict[str, str]]:
        """A data set whose test split is one photo, and an evaluation that has judged it, with more `fields`."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, body in (("k.jpg", content), ("k.cls", b"a")):
                member = tarfile.TarInfo(name)
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))
        listed = manifest("toys", [("0" * 64, "test", 1)])
        prediction = {"key": "k", "label": "a", "prediction": "a", "probabilities": [1.0, 0.0], **fields}
        uris = [
            self._put(key, body)
            for key, body in (
                ("datasets/toys/versions/v/manifest.json", listed.to_json().encode()),
                ("predictions.jsonl", json.dumps(prediction).encode()),
                (f"datasets/toys/shards/{'0' * 64}.tar", packed.getvalue()),
            )
        ]
        return {"manifest_uri": uris[0]}, {"predictions_uri": uris[1]}

    def _put(self, key: str, body: bytes) -> str:
        self.s3.put_object(Bucket=self.made.bucket, Key=key, Body=body)
        return f"s3://{self.made.bucket}/{key}"


TI = SimpleNamespace(
    dag_id="train_and_deploy", run_id="run", task_id="deploy", map_index=-1, xcom_push=lambda **_: None,
    try_number=1, max_tries=2,
)  # fmt: skip
CONTEXT = {"ti": TI}
LAST_TRY = {"ti": SimpleNamespace(**{**vars(TI), "try_number": 3})}


@pytest.fixture
def stage(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(cloud)
    monkeypatch.setenv("LOCAL_AWS_URL", cloud.url)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", airflow_connection(cloud.url))
    monkeypatch.setenv("ML_PIPELINE_BUCKET", made.made.bucket)
    monkeypatch.setenv("ML_PIPELINE_ROLE_ARN", ROLE)
    monkeypatch.setattr(airflow.sdk, "get_current_context", lambda: CONTEXT, raising=False)
    yield made
    with suppress(ClientError):  # a test that took it down
        made.sagemaker.delete_endpoint(EndpointName=made.made.endpoint)
