"""Looks at what the endpoints were asked: drift, accuracy without labels, unknown photos."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, CronTriggerTimetable, TriggerRule, task

from ml_pipeline.dag import assets
from ml_pipeline.dag import watch_params as params
from ml_pipeline.dag.defaults import dag_defaults, finish, params_of
from ml_pipeline.operators.leftovers import StopLeftoversOperator
from ml_pipeline.operators.watch import WatchOperator

with DAG(
    "watch",
    dag_display_name="Watch",
    description=__doc__,
    doc_md=params.WATCH_DOC,
    schedule=CronTriggerTimetable("17 * * * *", timezone="UTC"),
    catchup=False,
    # Two looks at once would see the same photos; the second waits.
    max_active_runs=1,
    params=params.watch(),
    **dag_defaults(scheduled=True),
) as dag:
    p = params_of(dag)

    @task
    def begin(endpoint_name: str, params: Any = None) -> list[dict[str, Any]]:
        """Fix the captures of the next look at each endpoint."""
        from ml_pipeline.dag import watch

        return watch.begin(endpoint_name, params)  # type: ignore[return-value]

    @task(inlets=[assets.ENDPOINT], outlets=[assets.LOOKS])
    def conclude(taken: Any, params: Any = None) -> Any:
        """Say what a look means: quiet, an alarm, or a proposal."""
        from airflow.sdk import get_current_context

        from ml_pipeline.dag import watch
        from ml_pipeline.dag.notifier import PipelineNotifier

        concluded = watch.conclude(taken, params)
        if message := watch.message(concluded):
            event, reason = message
            PipelineNotifier(event).notify({**get_current_context(), "reason": reason})
        return concluded

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def proposals(concluded: Any, data: str, retrain: str, conf: Any) -> list[dict[str, Any]]:
        """List the runs of `retraining_proposal` to start."""
        from ml_pipeline.dag import watch

        return watch.proposals(list(concluded or []), data, retrain, conf)

    look = WatchOperator.partial(
        task_id="look",
        instance_type=p("watch_instance_type"),
        least_photos=p("least_photos"),
        sample_photos=p("sample_photos"),
        queue_photos=p("queue_photos"),
    ).expand(begun=begin(p("endpoint_name")))
    concluded = conclude.expand(taken=look.output)
    # Its own run, so that an open question does not hold up the next look; the same look never asks twice.
    TriggerDagRunOperator.partial(
        task_id="propose", trigger_dag_id="retraining_proposal", skip_when_already_exists=True
    ).expand_kwargs(proposals(concluded, p("data"), p("retrain"), p("conf")))
    # A triggerer that died stopped no job.
    concluded >> StopLeftoversOperator(task_id="stop_leftovers").as_teardown()

    finish(dag)
