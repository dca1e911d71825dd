"""Train again when the photos changed: once a week, and on notifications of new photos in S3."""

from __future__ import annotations

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable

from ml_pipeline.dag import assets, docs, params
from ml_pipeline.dag.defaults import dag_defaults, finish, params_of
from ml_pipeline.dag.retrain import TrainingRunOperator
from ml_pipeline.dag.tasks import check_form, decide
from ml_pipeline.operators.upload import UploadOperator

with DAG(
    "scheduled_retraining",
    dag_display_name="Scheduled retraining",
    description=__doc__,
    doc_md=docs.RETRAINING_DOC,
    # The clock also reconciles: after a lost event, the next comparison finds the photos.
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 3 * * 1", timezone="UTC"), assets=[assets.photos()]
    ),
    catchup=False,
    max_active_runs=1,
    params=params.scheduled_retraining(),
    **dag_defaults(scheduled=True),
) as dag:
    p = params_of(dag)

    dataset = UploadOperator(
        task_id="upload",
        data=p("data"),
        dataset_name=p("dataset_name"),
        seed=p("seed"),
        group_lookalikes=p("group_lookalikes"),
        instance_type=p("prepare_instance_type"),
        outlets=[assets.DATASETS],
        pre_execute=check_form,
    ).output
    train = TrainingRunOperator(
        task_id="train",
        trigger_dag_id="train_and_deploy",
        trigger_run_id="{{ run_id }}",
        conf=decide(dataset, p("data"), p("seed"), p("group_lookalikes"), p("force"), p("conf")),
        poke_interval=10,
    )

    finish(dag)
