"""boto3 and aiobotocore clients through the one Airflow connection."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, TypedDict, cast

from ml_pipeline.settings import Settings

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
        from botocore.config import Config

        hook = self._hook(service)
        return hook.get_client_type(config=Config(max_pool_connections=CONNECTIONS).merge(hook.config))

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
    return session.client(service, endpoint_url=settings.local_aws_url, region_name=settings.region)
