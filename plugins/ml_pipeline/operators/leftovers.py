"""The teardown of a run: nothing that it started stays running, nothing that it locked stays locked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from ml_pipeline import leftovers, locks
from ml_pipeline.clients import AwsAccess
from ml_pipeline.locks import Holder
from ml_pipeline.settings import Settings


class StopLeftoversOperator(AwsBaseOperator[SageMakerHook]):
    """Stop every job in progress that carries the run's tags, and give the endpoint's lock back.

    Returns `{"stopped": [names], "unlocked": bool}`.

    :param endpoint_name: the endpoint that the run may have locked; None: none.
    """

    aws_hook_class = SageMakerHook
    template_fields = aws_template_fields("endpoint_name")

    def __init__(self, *, endpoint_name: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.endpoint_name = endpoint_name

    def execute(self, context: Any) -> dict[str, Any]:
        """Find by tag and stop."""
        run = context["dag_run"]
        # A day of slack for runs whose tasks were cleared: their start date moves.
        since = (run.start_date or datetime.now(UTC)) - timedelta(days=1)
        stopped = leftovers.stop_jobs(self.hook.conn, run.dag_id, run.run_id, since)
        self.log.info("stopped %s", ", ".join(stopped) or "nothing: no job was running")
        if self.endpoint_name is None:
            return {"stopped": stopped, "unlocked": False}
        settings = Settings.load()
        s3 = AwsAccess(self.aws_conn_id, self.region_name, self.verify, self.botocore_config).client("s3")
        lock_uri = locks.uri(settings.bucket, self.endpoint_name)
        unlocked = locks.release(s3, lock_uri, Holder(run.dag_id, run.run_id))
        return {"stopped": stopped, "unlocked": unlocked}
