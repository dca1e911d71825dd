"""Endpoints that vanish while they are listed."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from moto import mock_aws

from ml_pipeline.watching.endpoints import watched
from tests.ml_pipeline.fake_sagemaker import client_error

TAGS = [{"Key": "project", "Value": "ml-pipeline"}, {"Key": "endpoint", "Value": "dogs"}]


class Deleting:
    """A client during whose call someone deletes the endpoint `dogs`."""

    def __init__(self, client: Any, call: str) -> None:
        self._client, self._call = client, call

    def __getattr__(self, name: str) -> Any:
        if name != self._call:
            return getattr(self._client, name)
        self._call = ""
        self._client.delete_endpoint(EndpointName="dogs")
        if name == "list_tags":  # moto has no answer for what is gone
            return _gone
        return getattr(self._client, name)


def _gone(**_: Any) -> None:
    raise client_error("ValidationException", 'Could not find endpoint "dogs".')


@pytest.mark.parametrize("call", ["list_tags", "describe_endpoint"])
def test_an_endpoint_that_is_deleted_meanwhile_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("sagemaker", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        for name in ("dogs", "cats"):
            model = client.create_model(
                ModelName=name, ExecutionRoleArn="arn:aws:iam::1:role/x",
                PrimaryContainer={"Image": "image", "ModelDataUrl": "s3://b/m.tar.gz"},
            )  # fmt: skip
            assert model
            variant = {
                "VariantName": "main", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large",
            }  # fmt: skip
            client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
            client.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=TAGS)
        found = list(watched(Deleting(client, call)))
        assert [endpoint.name for endpoint in found] == ["cats"]
        assert "not captured" in (found[0].trouble or "")
        assert not list(watched(client, "dogs"))
