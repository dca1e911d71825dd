"""Takes an endpoint down on purpose: frees all that serves, keeps all that was learnt."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from ml_pipeline.dag import params
from ml_pipeline.dag.defaults import dag_defaults

with DAG(
    "teardown",
    dag_display_name="Take an endpoint down",
    description=__doc__,
    doc_md=params.TEARDOWN_DOC,
    schedule=None,
    params=params.teardown(),
    max_active_runs=1,
    **dag_defaults(),
) as dag:
    p = dag.param

    @task
    def take_down(endpoint_name: str) -> dict[str, Any]:
        """Delete the endpoint, its config, models, alarms and scaling; packages and data stay."""
        from ml_pipeline.dag import tasks

        return tasks.take_down(endpoint_name)

    take_down(p("endpoint_name"))
