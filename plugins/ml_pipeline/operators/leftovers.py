"""The teardown of a run: end the paid work that runs left behind and release the run's lock."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Unpack

from ml_pipeline.deployment import leftovers, locks
from ml_pipeline.deployment.locks import Holder
from ml_pipeline.errors import FreeRetryPolicy, one_line
from ml_pipeline.operators.aws import AwsOperator, AwsOptions
from ml_pipeline.requests.names import tag_value
from ml_pipeline.requests.types import Stopped, Templated
from ml_pipeline.settings import Settings
from ml_pipeline.triggers.ownership import run_has_ended

if TYPE_CHECKING:
    from airflow.sdk import Context


class StopLeftoversOperator(AwsOperator):
    """Stop the jobs and instances of this run, and of earlier ones that have ended; release the endpoint's lock.

    Where even this task finds no space on a full disk, the next run of any DAG ends the work.

    Args:
        endpoint_name: The endpoint that the run may have locked, if any.
    """

    template_fields = ("endpoint_name",)

    def __init__(self, *, endpoint_name: Templated = None, **kwargs: Unpack[AwsOptions]) -> None:
        kwargs.setdefault("retry_policy", FreeRetryPolicy())
        super().__init__(**kwargs)
        self.endpoint_name = endpoint_name

    def execute(self, context: Context) -> Stopped:
        """Find the work by tag and end it."""
        run = context["dag_run"]
        me = (tag_value(run.dag_id), tag_value(run.run_id))

        @functools.cache
        def ended(dag_id: str, run_id: str) -> bool:
            return (dag_id, run_id) == me or self._has_ended(dag_id, run_id)

        stopped = leftovers.stop_jobs(self.client("sagemaker"), ended)
        stopped += leftovers.terminate_instances(self.client("ec2"), ended)
        self.log.info("stopped %s", ", ".join(stopped) or "nothing: no job was running")
        if not self.endpoint_name:
            return {"stopped": stopped, "unlocked": False}
        settings = Settings.load()
        lock_uri = locks.uri(settings.bucket, self.endpoint_name)
        unlocked = locks.release(self.client("s3"), lock_uri, Holder(run.dag_id, run.run_id))
        return {"stopped": stopped, "unlocked": unlocked}

    def _has_ended(self, dag_id: str, run_id: str) -> bool:
        """Return True if Airflow says so: an error must not keep this run's own work alive."""
        try:
            return run_has_ended(dag_id, run_id)
        except Exception as error:
            self.log.warning("cannot tell whether %s of %s has ended: %s", run_id, dag_id, one_line(error))
            return False
