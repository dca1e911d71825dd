"""The bucket before a run: what is told of it, and what is tried again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ml_pipeline.aws.s3 import ensure_bucket
from tests.ml_pipeline.fake_sagemaker import client_error

SETTINGS: Any = SimpleNamespace(bucket="photos", local=False)


def answering(error: ClientError) -> Any:
    def refuse(**_: Any) -> None:
        raise error

    return SimpleNamespace(head_bucket=refuse)


@pytest.mark.parametrize("status", [403, 404])
def test_a_bucket_that_cannot_be_used_is_named_with_what_helps(status: int) -> None:
    error = client_error(str(status), "refused", "HeadBucket", status)
    with pytest.raises(ValueError, match=r"cannot use the bucket 'photos'.*set ML_PIPELINE_BUCKET"):
        ensure_bucket(SETTINGS, answering(error))


@pytest.mark.parametrize("status", [400, 503])
def test_credentials_that_ran_out_and_outages_are_tried_again(status: int) -> None:
    error = client_error(str(status), "later", "HeadBucket", status)
    with pytest.raises(ClientError):
        ensure_bucket(SETTINGS, answering(error))
