"""Photos in, a served classifier out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import (
    DAG,
    AsyncCallback,
    DeadlineAlert,
    DeadlineReference,
    TaskGroup,
    TriggerRule,
    task,
)

from ml_pipeline.dag import assets, params
from ml_pipeline.dag.defaults import dag_defaults
from ml_pipeline.dag.notifier import PipelineNotifier
from ml_pipeline.operators.approve import ApproveModelOperator
from ml_pipeline.operators.deploy import DeployEndpointOperator
from ml_pipeline.operators.ec2 import CreateInstanceOperator, Ec2TrainingOperator, TerminateInstanceOperator
from ml_pipeline.operators.embed import EmbedOperator
from ml_pipeline.operators.evaluate import EvaluateOperator
from ml_pipeline.operators.gate import GateOperator
from ml_pipeline.operators.leftovers import StopLeftoversOperator
from ml_pipeline.operators.register import RegisterModelOperator
from ml_pipeline.operators.training import TrainingOperator
from ml_pipeline.operators.tuning import HyperparameterTuningOperator

with DAG(
    "train_and_deploy",
    dag_display_name="Train and deploy",
    description=__doc__,
    doc_md=params.DOC,
    schedule=None,
    params=params.train_and_deploy(),
    deadline=DeadlineAlert(
        # Not DAGRUN_QUEUED_AT: with it, Airflow 3.3.2 answers 500 to every clear of a task (its recalculation of the
        # deadline takes the serialized interval for a number).
        reference=DeadlineReference.AVERAGE_RUNTIME(max_runs=10, min_runs=1),
        interval=timedelta(hours=2),
        callback=AsyncCallback(PipelineNotifier, kwargs={"event": "late"}),
    ),
    **dag_defaults(),
) as dag:
    p = dag.param

    @task
    def plan(params: Any = None) -> dict[str, Any]:
        """Estimate cost and time; refuse a run over budget, and params that do not go together."""
        from ml_pipeline.dag import tasks

        return tasks.plan(params)

    @task
    def upload(data: str, dataset_name: str, seed: int) -> dict[str, Any]:
        """Make and upload the data set version of the photos in `data`."""
        from ml_pipeline.dag import tasks

        return tasks.upload(data, dataset_name, seed)

    @task
    def weights(weights: str, architecture: str) -> dict[str, Any]:
        """Bring the backbone's weights to S3."""
        from ml_pipeline.dag import tasks

        return tasks.weights(weights, architecture)

    @task.branch
    def choose(train_on: str) -> str:
        """Which branch trains the final model."""
        return "train" if train_on == "sagemaker" else "ec2.create"

    @task
    def smoke_test(dataset: Any, evaluation: Any, deployment: Any) -> dict[str, Any]:
        """Ask the endpoint about test photos; fail unless it answers as the evaluation did."""
        from ml_pipeline.dag import tasks

        return tasks.smoke_test(dataset, evaluation, deployment)

    @task
    def report(params: Any = None, ti: Any = None) -> dict[str, Any]:
        """Add up billable seconds; compare machines by what was measured on them."""
        from ml_pipeline.dag import tasks

        return tasks.report(params, ti)

    recipe = {name: p(name) for name in ("strategy", "architecture", "seed", "hyperparameters", "ranges")}
    planned = plan()
    dataset = upload(p("data"), p("dataset_name"), p("seed"))
    pretrained = weights(p("weights"), p("architecture"))
    embed = EmbedOperator(
        task_id="embed",
        dataset=dataset,
        weights=pretrained,
        strategy=p("strategy"),
        architecture=p("architecture"),
        views=p("views"),
        force=p("force"),
        instance_type=p("embed_instance_type"),
        instance_count=p("embed_instance_count"),
    )
    material = {"dataset": dataset, "weights": pretrained, "embeddings": embed.output, "recipe": recipe}
    tune = HyperparameterTuningOperator(
        task_id="tune",
        **material,
        tune_mode=p("tune_mode"),
        trials=p("trials"),
        parallel_trials=p("parallel_trials"),
        tune_strategy=p("tune_strategy"),
        early_stopping=p("early_stopping"),
        target=p("target"),
        patience_trials=p("patience_trials"),
        stop_when_converged=p("stop_when_converged"),
        warm_start=p("warm_start"),
        instance_type=p("tune_instance_type"),
        spot=p("spot"),
        keep_alive=p("keep_alive"),
        max_job_hours=p("max_job_hours"),
    )
    train = TrainingOperator(
        task_id="train",
        **material,
        tuning=tune.output,
        instance_type=p("train_instance_type"),
        instance_count=p("train_instance_count"),
        spot=p("spot"),
        keep_alive=p("keep_alive"),
        max_job_hours=p("max_job_hours"),
    )
    with TaskGroup("ec2", prefix_group_id=True):
        create = CreateInstanceOperator(
            task_id="create", instance_type=p("train_instance_type"), max_job_hours=p("max_job_hours")
        ).as_setup()
        train_on_ec2 = Ec2TrainingOperator(
            task_id="train",
            machine=create.output,
            **material,
            tuning=tune.output,
            max_job_hours=p("max_job_hours"),
        )
        terminate = TerminateInstanceOperator(task_id="terminate").as_teardown(setups=create)
    evaluate = EvaluateOperator(
        task_id="evaluate",
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        dataset=dataset,
        training=[train.output, train_on_ec2.output],
        group=p("dataset_name"),
        instance_type=p("evaluate_instance_type"),
        max_job_hours=p("max_job_hours"),
    )
    gate = GateOperator(
        task_id="gate",
        dataset=dataset,
        evaluation=evaluate.output,
        min_accuracy=p("min_accuracy"),
        margin=p("margin"),
        burden=p("burden"),
    )
    register = RegisterModelOperator(
        task_id="register",
        group=p("dataset_name"),
        dataset=dataset,
        evaluation=evaluate.output,
        instance_type=p("endpoint_instance_type"),
        approval=p("approval"),
    )
    approve = ApproveModelOperator(
        task_id="approve",
        subject="Deploy this model of {{ params.dataset_name }}?",
        body=params.APPROVAL_BODY,
        approval=p("approval"),
        package=register.output,
    )
    deploy = DeployEndpointOperator(
        task_id="deploy",
        endpoint_name=p("endpoint_name"),
        package=register.output,
        instance_type=p("endpoint_instance_type"),
        instance_count=p("endpoint_instance_count"),
        max_count=p("endpoint_max_count"),
        canary_percent=p("canary_percent"),
        bake_seconds=p("bake_seconds"),
        outlets=[assets.endpoint()],
        on_success_callback=PipelineNotifier("deployed"),
    )
    answers = smoke_test(dataset, evaluate.output, deploy.output)
    # Teardowns run whatever happened, and do not decide whether the run succeeded.
    bill = report().as_teardown()
    stop_leftovers = StopLeftoversOperator(
        task_id="stop_leftovers", endpoint_name=p("endpoint_name")
    ).as_teardown()

    planned >> [dataset, pretrained]
    tune >> choose(p("train_on")) >> [train, create]
    # The bill of the machine is the terminate task's.
    train_on_ec2 >> terminate >> bill
    evaluate >> gate >> register >> approve >> deploy >> answers >> bill >> stop_leftovers
