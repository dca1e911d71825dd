"""One set of stacks for all tests here: they only read them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from unittest import mock

import pytest
from moto import mock_aws

from tests.infra import stacks

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": stacks.REGION,
}


@pytest.fixture(scope="package")
def deployed() -> Iterator[dict[str, dict[str, str]]]:
    """The outputs of every stack."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with (
        mock.patch.dict(os.environ, environ | CREDENTIALS, clear=True),
        mock_aws(),
        warnings.catch_warnings(),
    ):
        # moto knows no bucket, queue and topic policies; tests/infra/test_storage.py reads those itself.
        warnings.simplefilter("ignore")
        yield {
            "storage": stacks.create("storage"),
            "images": stacks.create("images"),
            "network": stacks.create("network"),
            "jobs": stacks.create("jobs"),
            "airflow": stacks.create("airflow"),
            "endpoint": stacks.create("endpoint", EndpointName="dogs"),
        }
