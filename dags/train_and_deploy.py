"""Photos in, a served classifier out."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import (
    DAG,
    AsyncCallback,
    DeadlineAlert,
    DeadlineReference,
    TaskGroup,
    TriggerRule,
)

from ml_pipeline.dag import assets, docs, params
from ml_pipeline.dag.defaults import dag_defaults, finish, params_of
from ml_pipeline.dag.notifier import PipelineNotifier
from ml_pipeline.dag.tasks import bill, choose, plan, smoke_test, teacher, weights
from ml_pipeline.operators.approve import COMMENT, ApproveModelOperator
from ml_pipeline.operators.check import CheckDataOperator
from ml_pipeline.operators.deploy import DeployEndpointOperator
from ml_pipeline.operators.ec2 import CreateInstanceOperator, Ec2TrainingOperator, TerminateInstanceOperator
from ml_pipeline.operators.embed import EmbedOperator
from ml_pipeline.operators.evaluate import EvaluateOperator
from ml_pipeline.operators.gate import GateOperator
from ml_pipeline.operators.leftovers import StopLeftoversOperator
from ml_pipeline.operators.register import RegisterModelOperator
from ml_pipeline.operators.training import TrainingOperator
from ml_pipeline.operators.tuning import HyperparameterTuningOperator
from ml_pipeline.operators.upload import UploadOperator

with DAG(
    "train_and_deploy",
    dag_display_name="Train and deploy",
    description=__doc__,
    doc_md=docs.DOC,
    schedule=None,
    params=params.train_and_deploy(),
    deadline=DeadlineAlert(
        # Not DAGRUN_QUEUED_AT: with it, Airflow 3.3.2 answers 500 to every clear of a task, because recalculating the
        # deadline takes the serialized interval for a number.
        reference=DeadlineReference.AVERAGE_RUNTIME(max_runs=10, min_runs=1),
        interval=timedelta(hours=2),
        callback=AsyncCallback(PipelineNotifier, kwargs={"event": "late"}),
    ),
    **dag_defaults(),
) as dag:
    p = params_of(dag)

    recipe = {name: p(name) for name in ("strategy", "architecture", "seed", "hyperparameters", "ranges")}
    with TaskGroup("prepare", group_display_name="Prepare", prefix_group_id=False):
        planned = plan()
        upload = UploadOperator(
            task_id="upload",
            data=p("data"),
            dataset_name=p("dataset_name"),
            seed=p("seed"),
            group_lookalikes=p("group_lookalikes"),
            force=p("force"),
            instance_type=docs.machine("prepare_instance_type"),
            outlets=[assets.DATASETS],
        )
        dataset = upload.output
        pretrained = weights(p("weights"), p("architecture"))
        taught = teacher(p("teacher"))
    with TaskGroup("data", group_display_name="Data", prefix_group_id=False):
        embed = EmbedOperator(
            task_id="embed",
            dataset=dataset,
            weights=pretrained,
            strategy=p("strategy"),
            architecture=p("architecture"),
            views=p("views"),
            force=p("force"),
            instance_type=docs.machine("embed_instance_type"),
            instance_count=p("embed_instance_count"),
            inlets=[assets.DATASETS],
        )
        embed_teacher = EmbedOperator(
            task_id="embed_teacher",
            dataset=dataset,
            weights=taught,
            strategy=p("strategy"),
            architecture=taught["architecture"],
            force=p("force"),
            instance_type=docs.machine("embed_instance_type"),
            instance_count=p("embed_instance_count"),
            teacher=True,
        )
        check_data = CheckDataOperator(
            task_id="check_data",
            dataset=dataset,
            embeddings=embed.output,
            max_suspect_share=p("max_suspect_share"),
            instance_type=docs.machine("embed_instance_type"),
        )
    material = {
        "dataset": dataset,
        "weights": pretrained,
        "embeddings": embed.output,
        "teacher": embed_teacher.output,
        "recipe": recipe,
    }
    with TaskGroup("model", group_display_name="Model", prefix_group_id=False):
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
            instance_type=docs.machine("tune_instance_type"),
            spot=p("spot"),
            keep_alive=p("keep_alive"),
            max_job_hours=p("max_job_hours"),
        )
        chosen = choose(p("train_on"))
        train = TrainingOperator(
            task_id="train",
            **material,
            tuning=tune.output,
            instance_type=docs.machine("train_instance_type"),
            instance_count=p("train_instance_count"),
            spot=p("spot"),
            keep_alive=p("keep_alive"),
            max_job_hours=p("max_job_hours"),
        )
        with TaskGroup("ec2", prefix_group_id=True):
            create = CreateInstanceOperator(
                task_id="create",
                instance_type=docs.machine("train_instance_type"),
                dataset=dataset,
                max_job_hours=p("max_job_hours"),
            ).as_setup()
            train_on_ec2 = Ec2TrainingOperator(
                task_id="train",
                machine=create.output,
                **material,
                tuning=tune.output,
                max_job_hours=p("max_job_hours"),
            )
            terminate = TerminateInstanceOperator(task_id="terminate").as_teardown(setups=create)
    with TaskGroup("decision", group_display_name="Decision", prefix_group_id=False):
        evaluate = EvaluateOperator(
            task_id="evaluate",
            trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
            dataset=dataset,
            training=[train.output, train_on_ec2.output],
            group=dataset["name"],
            instance_type=p("evaluate_instance_type"),
            max_job_hours=p("max_job_hours"),
            outlets=[assets.EVALUATIONS],
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
            group=dataset["name"],
            dataset=dataset,
            evaluation=evaluate.output,
            instance_type=p("endpoint_instance_type"),
            approval=docs.APPROVAL,
            inlets=[assets.EVALUATIONS],
            outlets=[assets.MODELS],
        )
        approve = ApproveModelOperator(
            task_id="approve",
            subject="Deploy this model of {{ ti.xcom_pull(task_ids='upload')['name'] }}?",
            approval=docs.APPROVAL,
            package=register.output,
            planned=planned,
            params={"comment": COMMENT},
            evaluation=evaluate.output,
            gate=gate.output,
        )
    with TaskGroup("service", group_display_name="Service", prefix_group_id=False):
        deploy = DeployEndpointOperator(
            task_id="deploy",
            endpoint_name=docs.ENDPOINT,
            package=register.output,
            replace_endpoint=p("replace_endpoint"),
            instance_type=p("endpoint_instance_type"),
            instance_count=p("endpoint_instance_count"),
            max_count=p("endpoint_max_count"),
            canary_percent=p("canary_percent"),
            bake_seconds=p("bake_seconds"),
            capture_percent=p("capture_percent"),
            capture_days=p("capture_days"),
            inlets=[assets.MODELS],
            outlets=[assets.ENDPOINT],
            on_success_callback=PipelineNotifier("deployed"),
        )
        answers = smoke_test(dataset, evaluate.output, deploy.output)
    with TaskGroup("end", group_display_name="Finish", prefix_group_id=False):
        # Teardowns always run, and do not decide whether the run succeeded.
        billed = bill().as_teardown()
        stop_leftovers = StopLeftoversOperator(
            task_id="stop_leftovers", endpoint_name=docs.ENDPOINT
        ).as_teardown()

    planned >> [upload, pretrained, taught]
    check_data >> tune
    tune >> chosen >> [train, create]
    # The result of terminate is the bill of the instance.
    train_on_ec2 >> terminate >> billed
    evaluate >> gate >> register >> approve >> deploy >> answers >> billed >> stop_leftovers

    finish(dag)
