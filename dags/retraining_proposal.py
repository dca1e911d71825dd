"""Asks a person whether to train again after the photos have changed, then starts train_and_deploy."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from ml_pipeline.dag import watch_params as params
from ml_pipeline.dag.defaults import dag_defaults, finish, params_of
from ml_pipeline.dag.retrain import TrainingRunOperator
from ml_pipeline.operators.approve import ApproveRetrainingOperator

with DAG(
    "retraining_proposal",
    dag_display_name="Retraining proposal",
    description=__doc__,
    doc_md=params.PROPOSAL_DOC,
    schedule=None,
    params=params.retraining_proposal(),
    **dag_defaults(),
) as dag:
    p = params_of(dag)

    @task
    def conf(
        data: str, dataset_name: str, endpoint_name: str, conf: Any, params: Any = None
    ) -> dict[str, Any]:
        """Return the params of the training run; a misspelt one is refused before a person is asked."""
        from ml_pipeline.dag import params as form

        form.check_names("retraining_proposal", params)
        return {**conf, "data": data, "dataset_name": dataset_name, "endpoint_name": endpoint_name}

    ask = ApproveRetrainingOperator(
        task_id="ask",
        subject="Train {{ params.dataset_name }} again for {{ params.endpoint_name }}?",
        body=params.PROPOSAL_BODY,
        retrain=p("retrain"),
        endpoint_name=p("endpoint_name"),
    )
    made = conf(p("data"), p("dataset_name"), p("endpoint_name"), p("conf"))
    train = TrainingRunOperator(
        task_id="train",
        trigger_dag_id="train_and_deploy",
        trigger_run_id="{{ run_id }}",
        conf=made,
        poke_interval=10,
    )
    made >> ask >> train

    finish(dag)
