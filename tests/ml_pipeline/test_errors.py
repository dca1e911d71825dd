"""Errors that are retried, and those that are not."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from boto3.exceptions import S3UploadFailedError
from botocore.stub import Stubber

from ml_pipeline.errors import PaidWorkRetryPolicy, is_transient, job_error
from tests.ml_pipeline.fake_sagemaker import client_error


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (client_error("ThrottlingException", "slow"), True),
        (
            client_error("503", "Service Unavailable", status=503),
            True,
        ),  # without a body, as load balancers answer
        (client_error("501", "not supported", status=501), False),
        # S3's answers to expired credentials.
        (client_error("400", "Bad Request", "HeadObject"), True),
        (client_error("ExpiredToken", "expired", "GetObject"), True),
        (client_error("InvalidRequest", "bad", "GetObject"), False),
        (client_error("403", "Forbidden", "HeadObject", status=403), False),
        (client_error("ResourceLimitExceeded", "quota"), False),
        (client_error("ValidationException", "bad"), False),
        (job_error("j", "Failed", "CapacityError: Unable to provision requested ML compute capacity."), True),
        (job_error("j", "Failed", "AlgorithmError: ExecuteUserScriptError"), False),
        (ConnectionRefusedError(), True),
        (AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR)), True),
        (AirflowRuntimeError(ErrorResponse(error=ErrorType.PERMISSION_DENIED)), False),
        (ValueError("bug"), False),
    ],
)
def test_only_what_may_pass_is_retried(error: BaseException, retried: bool) -> None:
    decision = PaidWorkRetryPolicy().evaluate(error, 1, 2)
    assert (decision.action.value == "retry") is retried


@pytest.mark.parametrize(("code", "retried"), [("ExpiredToken", True), ("AccessDenied", False)])
def test_an_upload_is_tried_again_as_its_refusal_deserves(tmp_path: Path, code: str, retried: bool) -> None:
    s3 = boto3.client("s3", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    with Stubber(s3) as stubber:
        stubber.add_client_error("put_object", code)
        with pytest.raises(S3UploadFailedError) as failed:
            s3.upload_file(str(tmp_path / "photo.jpg"), "photos", "photo.jpg")
    assert is_transient(failed.value) is retried
