"""The teardown of a run: nothing that it started stays running, nothing that it locked stays locked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ml_pipeline.deployment import leftovers, locks
from ml_pipeline.deployment.locks import Holder
from ml_pipeline.operators.aws import AwsOperator
from ml_pipeline.settings import Settings


class StopLeftoversOperator(AwsOperator):
    """Stop every job in progress that carries the run's tags, and give the endpoint's lock back.

    Returns `{"stopped": [names], "unlocked": bool}`.

    :param endpoint_name: the endpoint that the run may have locked; None: none.
    """

    template_fields = ("endpoint_name",)

    def __init__(self, *, endpoint_name: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.endpoint_name = endpoint_name

    def execute(self, context: Any) -> dict[str, Any]:
        """Find by tag and stop."""
        run = context["dag_run"]
        # A day of slack for runs whose tasks were cleared: their start date moves.
        since = (run.start_date or datetime.now(UTC)) - timedelta(days=1)
        stopped = leftovers.stop_jobs(self.client("sagemaker"), run.dag_id, run.run_id, since)
        self.log.info("stopped %s", ", ".join(stopped) or "nothing: no job was running")
        if self.endpoint_name is None:
            return {"stopped": stopped, "unlocked": False}
        settings = Settings.load()
        lock_uri = locks.uri(settings.bucket, self.endpoint_name)
        unlocked = locks.release(self.client("s3"), lock_uri, Holder(run.dag_id, run.run_id))
        return {"stopped": stopped, "unlocked": unlocked}
