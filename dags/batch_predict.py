"""A folder of photos in, a table of predictions out."""

from __future__ import annotations

from airflow.sdk import DAG

from ml_pipeline.dag import docs, params
from ml_pipeline.dag.defaults import dag_defaults, finish, params_of
from ml_pipeline.dag.tasks import stage, table
from ml_pipeline.operators.leftovers import StopLeftoversOperator
from ml_pipeline.operators.transform import TransformOperator

with DAG(
    "batch_predict",
    dag_display_name="Batch predict",
    description=__doc__,
    doc_md=docs.BATCH_DOC,
    schedule=None,
    params=params.batch_predict(),
    **dag_defaults(),
) as dag:
    p = params_of(dag)

    predict = TransformOperator(
        task_id="predict",
        group=p("dataset_name"),
        staged=stage(p("photos")),
        instance_type=p("instance_type"),
        instance_count=p("instance_count"),
    )
    table(predict.output) >> StopLeftoversOperator(task_id="stop_leftovers").as_teardown()

    finish(dag)
