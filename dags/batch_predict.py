"""A folder of photos in, a table of predictions out."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from ml_pipeline.dag import params
from ml_pipeline.dag.defaults import dag_defaults
from ml_pipeline.operators.leftovers import StopLeftoversOperator
from ml_pipeline.operators.transform import TransformOperator

with DAG(
    "batch_predict",
    dag_display_name="Batch predict",
    description=__doc__,
    doc_md=params.BATCH_DOC,
    schedule=None,
    params=params.batch_predict(),
    **dag_defaults(),
) as dag:
    p = dag.param

    @task
    def stage(photos: str) -> dict[str, Any]:
        """Make sure that the photos are in S3."""
        from ml_pipeline.dag import tasks

        return tasks.stage(photos)

    @task
    def table(prediction: Any) -> dict[str, Any]:
        """Gather the answers into one table."""
        from ml_pipeline.dag import tasks

        return tasks.table(prediction)

    predict = TransformOperator(
        task_id="predict",
        group=p("dataset_name"),
        staged=stage(p("photos")),
        instance_type=p("instance_type"),
        instance_count=p("instance_count"),
    )
    table(predict.output) >> StopLeftoversOperator(task_id="stop_leftovers").as_teardown()
