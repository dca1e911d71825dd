"""Trains again when there are other photos: once a week, and when S3 tells of new ones."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, task

from ml_pipeline.dag import assets, params
from ml_pipeline.dag.defaults import dag_defaults
from ml_pipeline.operators.retrain import TrainingRunOperator

with DAG(
    "scheduled_retraining",
    dag_display_name="Scheduled retraining",
    description=__doc__,
    doc_md=params.RETRAINING_DOC,
    # The clock is also what reconciles: an event that was lost is caught when the photos are next compared.
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 3 * * 1", timezone="UTC"), assets=[assets.photos()]
    ),
    catchup=False,
    max_active_runs=1,
    params=params.scheduled_retraining(),
    **dag_defaults(scheduled=True),
) as dag:
    p = dag.param

    @task
    def upload(data: str, dataset_name: str, seed: int) -> dict[str, Any]:
        """Compare the photos with the newest version; upload what is new."""
        from ml_pipeline.dag import tasks

        return tasks.upload(data, dataset_name, seed)

    @task
    def decide(dataset: Any, data: str, seed: int, force: bool, conf: Any, ti: Any = None) -> dict[str, Any]:
        """Skip, saying why, when the champion was trained on these very photos."""
        from ml_pipeline.dag import tasks

        return tasks.decide_retraining(dataset, data, seed, force, conf, ti)

    dataset = upload(p("data"), p("dataset_name"), p("seed"))
    train = TrainingRunOperator(
        task_id="train",
        trigger_dag_id="train_and_deploy",
        trigger_run_id="{{ run_id }}",
        conf=decide(dataset, p("data"), p("seed"), p("force"), p("conf")),
        poke_interval=10,
    )
