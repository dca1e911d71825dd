"""Sessions of boto3 whose clients stay on loopback, even when a library names an address of AWS.

The SageMaker SDK asks STS for the account at `https://sts.<region>.amazonaws.com`, whatever AWS_ENDPOINT_URL says. A
session of this module ignores such an address; `local-aws run` makes every session of its command do so
(`loopback/sitecustomize.py`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.session import Session as BotocoreSession

AWS_SUFFIXES = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


def is_aws(url: str | None) -> bool:
    """Return True for an address of AWS itself."""
    host = urlsplit(url or "").hostname or ""
    return host.endswith(AWS_SUFFIXES)


class LoopbackSession(BotocoreSession):
    """A session that ignores addresses of AWS: its clients use AWS_ENDPOINT_URL, or `endpoint_url`."""

    def __init__(self, *arguments: Any, endpoint_url: str = "", **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._endpoint_url = endpoint_url

    def create_client(self, service_name: str, *arguments: Any, **more: Any) -> Any:
        """Create a client as botocore does. Raises RuntimeError without an address of local_aws."""
        given = more.get("endpoint_url")
        if given is None or is_aws(given):
            more["endpoint_url"] = self._endpoint_url or _address(os.environ)
        return super().create_client(service_name, *arguments, **more)


def session(endpoint_url: str = "", **options: Any) -> boto3.Session:
    """Return a boto3 session for local_aws, such as the SageMaker SDK takes as `boto_session`.

    Args:
        endpoint_url: The address of local_aws; by default AWS_ENDPOINT_URL.
        options: As boto3.Session takes them.
    """
    return boto3.Session(botocore_session=LoopbackSession(endpoint_url=endpoint_url), **options)


def _address(environ: Mapping[str, str]) -> str:
    url = environ.get("AWS_ENDPOINT_URL", "")
    if not url or is_aws(url):
        raise RuntimeError('AWS_ENDPOINT_URL is not set to a local_aws: eval "$(local-aws env --state DIR)"')
    return url
