"""Finds, and when told to removes, what nobody uses any more."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from ml_pipeline.dag import params
from ml_pipeline.dag.defaults import dag_defaults

with DAG(
    "janitor",
    dag_display_name="Janitor",
    description=__doc__,
    doc_md=params.JANITOR_DOC,
    schedule=None,
    params=params.janitor(),
    max_active_runs=1,
    **dag_defaults(),
) as dag:
    p = dag.param

    @task
    def sweep(days: float, instance_hours: float, dry_run: bool) -> dict[str, Any]:
        """Look for orphans by tag and age; a dry run by default."""
        from ml_pipeline.dag import tasks

        return tasks.sweep(days, instance_hours, dry_run)

    sweep(p("days"), p("instance_hours"), p("dry_run"))
