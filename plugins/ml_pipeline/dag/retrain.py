"""Start a training run and wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.trigger_dagrun import XCOM_RUN_ID, TriggerDagRunOperator
from airflow.providers.standard.triggers.external_task import DagStateTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class TrainingRunOperator(TriggerDagRunOperator):
    """Start the run `trigger_run_id` of `trigger_dag_id` and end as it ends, waiting deferred.

    A task that was cleared, or whose worker was killed, finds the run of the try before it. If that run is under way,
    it is waited for. If it has ended, it runs again from its start: it compares the photos anew and finds finished jobs
    by their names. Airflow's operator alone can only skip the task, which is then green even if the training failed, or
    clear the run, which interrupts its tasks.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(wait_for_completion=True, deferrable=True, reset_dag_run=True, **kwargs)

    def execute(self, context: Context) -> None:
        """Start the run, or wait for the one that is under way."""
        ti, run_id = context["ti"], self.trigger_run_id
        found = {"dag_id": self.trigger_dag_id, "run_ids": [run_id]}
        if not ti.get_dr_count(**found, states=["queued", "running"]):
            return super().execute(context)
        self.log.info("run %s of %s is under way: waiting for it", run_id, self.trigger_dag_id)
        # Airflow's link to the run reads it.
        ti.xcom_push(key=XCOM_RUN_ID, value=run_id)
        trigger = DagStateTrigger(
            **found, states=self.allowed_states + self.failed_states, poll_interval=self.poke_interval
        )
        return self.defer(trigger=trigger, method_name="execute_complete")
