"""Take an endpoint down: delete everything that serves, keep everything that was learnt."""

from __future__ import annotations

from airflow.sdk import DAG

from ml_pipeline.dag import docs, params
from ml_pipeline.dag.defaults import dag_defaults, finish, params_of
from ml_pipeline.dag.tasks import take_down

with DAG(
    "teardown",
    dag_display_name="Take an endpoint down",
    description=__doc__,
    doc_md=docs.TEARDOWN_DOC,
    schedule=None,
    params=params.teardown(),
    max_active_runs=1,
    **dag_defaults(),
) as dag:
    take_down(params_of(dag)("endpoint_name"))

    finish(dag)
