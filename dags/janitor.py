"""Find, and on request remove, unused and broken things of this project."""

from __future__ import annotations

from airflow.sdk import DAG

from ml_pipeline.dag import docs, params
from ml_pipeline.dag.defaults import dag_defaults, finish, params_of
from ml_pipeline.dag.tasks import sweep

with DAG(
    "janitor",
    dag_display_name="Janitor",
    description=__doc__,
    doc_md=docs.JANITOR_DOC,
    schedule=None,
    params=params.janitor(),
    max_active_runs=1,
    **dag_defaults(),
) as dag:
    p = params_of(dag)

    sweep(p("days"), p("instance_hours"), p("dry_run"))

    finish(dag)
