"""The teardown of a run: stop the jobs that it left running and release its lock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Unpack

from ml_pipeline.deployment import leftovers, locks
from ml_pipeline.deployment.locks import Holder
from ml_pipeline.operators.aws import AwsOperator, AwsOptions
from ml_pipeline.requests.types import Stopped, Templated
from ml_pipeline.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class StopLeftoversOperator(AwsOperator):
    """Stop every job in progress that carries the run's tags, and release the endpoint's lock.

    Args:
        endpoint_name: The endpoint that the run may have locked, if any.
    """

    template_fields = ("endpoint_name",)

    def __init__(self, *, endpoint_name: Templated = None, **kwargs: Unpack[AwsOptions]) -> None:
        super().__init__(**kwargs)
        self.endpoint_name = endpoint_name

    def execute(self, context: Context) -> Stopped:
        """Find the jobs by tag and stop them."""
        run = context["dag_run"]
        # A day of slack for runs whose tasks were cleared: their start date moves.
        since = (run.start_date or datetime.now(UTC)) - timedelta(days=1)
        stopped = leftovers.stop_jobs(self.client("sagemaker"), run.dag_id, run.run_id, since)
        self.log.info("stopped %s", ", ".join(stopped) or "nothing: no job was running")
        if not self.endpoint_name:
            return {"stopped": stopped, "unlocked": False}
        settings = Settings.load()
        lock_uri = locks.uri(settings.bucket, self.endpoint_name)
        unlocked = locks.release(self.client("s3"), lock_uri, Holder(run.dag_id, run.run_id))
        return {"stopped": stopped, "unlocked": unlocked}
