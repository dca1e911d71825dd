"""boto3 and aiobotocore clients through the one Airflow connection."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

from ml_pipeline.settings import Settings

if TYPE_CHECKING:
    from botocore.config import Config

# A boto3 or aiobotocore client: botocore makes its methods from service models, at run time.
Client: TypeAlias = Any

# Requests that one client has in flight at most. With botocore's default of 10, any further request opens a connection
# of its own and closes it afterwards, a TLS handshake per object.
CONNECTIONS = 64


class AccessFields(TypedDict, total=False):
    """The fields of `AwsAccess`, as a trigger is serialized with them."""

    aws_conn_id: str | None
    region_name: str | None
    verify: bool | str | None
    botocore_config: dict[str, Any] | None


@dataclass(frozen=True)
class AwsAccess:
    """Connection and region for clients; an operator hands it to its trigger, so it is small and JSON-ready."""

    aws_conn_id: str | None = "aws_default"
    region_name: str | None = None
    verify: bool | str | None = None
    botocore_config: dict[str, Any] | None = None

    def client(self, service: str) -> Client:
        """Return a boto3 client of `service`."""
        hook = self._hook(service)
        config = _config(service, hook.conn_config.get_service_endpoint_url(service))
        return hook.get_client_type(config=config.merge(hook.config))

    async def async_client(self, service: str) -> Client:
        """Return an aiobotocore client of `service`: an async context manager."""
        return await self._hook(service).get_async_conn()

    def to_dict(self) -> AccessFields:
        """Return the fields, JSON-ready; `AwsAccess(**fields)` gives back an equal one."""
        return cast(AccessFields, asdict(self))

    def _hook(self, service: str) -> Any:
        from ml_pipeline.aws.hook import Hook

        return Hook(
            aws_conn_id=self.aws_conn_id,
            client_type=service,
            region_name=self.region_name,
            verify=self.verify,
            config=self.botocore_config,
        )


def command_client(settings: Settings, service: str) -> Client:
    """Return a boto3 client for a command outside Airflow: of local_aws where its address is set, else of AWS."""
    import boto3

    session: Any = boto3.session.Session()  # any service: boto3-stubs know only literal names
    return session.client(
        service,
        endpoint_url=settings.local_aws_url,
        region_name=settings.region,
        config=_config(service, settings.local_aws_url),
    )


def _config(service: str, endpoint_url: str | None) -> Config:
    """Return botocore's settings of a client; `endpoint_url` is None for AWS's own endpoint."""
    from botocore.config import Config

    config = Config(max_pool_connections=CONNECTIONS)
    if service != "s3":
        return config
    # By default presigned URLs have signatures of version 2 in old regions, which buckets made since June 2020 and
    # objects under a KMS key refuse.
    config = config.merge(Config(signature_version="s3v4"))
    if endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        return config
    # By default they name the global endpoint, which does not serve regions that an account opts in to.
    return config.merge(Config(s3={"addressing_style": "virtual"}))
