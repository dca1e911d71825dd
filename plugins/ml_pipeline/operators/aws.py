"""What every operator that talks to AWS shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.errors import PaidWorkRetryPolicy
from ml_pipeline.requests import names
from ml_pipeline.settings import Settings


class AwsOperator(BaseOperator):
    """Clients through one connection, and retries of what is worth retrying.

    Not the Amazon provider's AwsBaseOperator: its module imports boto3, 0.2 s of CPU whenever a DAG file is parsed.

    :param aws_conn_id: Airflow connection; by default that of the settings (ML_PIPELINE_AWS_CONN_ID).
    :param region_name, verify, botocore_config: as in the Amazon provider's operators.
    """

    def __init__(
        self,
        *,
        aws_conn_id: str | None = None,
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retries", 2)
        kwargs.setdefault("retry_policy", PaidWorkRetryPolicy())
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self._clients: dict[str, Any] = {}

    @property
    def access(self) -> AwsAccess:
        """How to reach AWS, for clients and triggers."""
        config = dict(self.botocore_config) if self.botocore_config else None
        conn_id = self.aws_conn_id or Settings.load().aws_conn_id
        return AwsAccess(conn_id, self.region_name, self.verify, config)

    def client(self, service: str) -> Any:
        """The boto3 client of `service`; made once."""
        if service not in self._clients:
            self._clients[service] = self.access.client(service)
        return self._clients[service]


def origin_of(context: Any) -> names.Origin:
    """The identity under which a task instance starts what it pays for."""
    ti = context["ti"]
    return names.Origin(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
