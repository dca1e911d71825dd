"""The teardown of a run: nothing that it started stays running."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator

from ml_pipeline import leftovers


class StopLeftoversOperator(AwsBaseOperator[SageMakerHook]):
    """Stop every job in progress that carries the run's tags. Returns `{"stopped": [names]}`."""

    aws_hook_class = SageMakerHook

    def execute(self, context: Any) -> dict[str, Any]:
        """Find by tag and stop."""
        run = context["dag_run"]
        # A day of slack for runs whose tasks were cleared: their start date moves.
        since = (run.start_date or datetime.now(UTC)) - timedelta(days=1)
        stopped = leftovers.stop_jobs(self.hook.conn, run.dag_id, run.run_id, since)
        self.log.info("stopped %s", ", ".join(stopped) or "nothing: no job was running")
        return {"stopped": stopped}
