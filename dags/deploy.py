"""Deploy a model version from the registry, or roll back to the one before."""

from __future__ import annotations

from airflow.sdk import DAG

from ml_pipeline.dag import assets, docs, params
from ml_pipeline.dag.defaults import dag_defaults, finish, params_of
from ml_pipeline.dag.notifier import PipelineNotifier
from ml_pipeline.dag.tasks import choose_version, keep_champion, smoke_test
from ml_pipeline.operators.deploy import DeployEndpointOperator
from ml_pipeline.operators.leftovers import StopLeftoversOperator

with DAG(
    "deploy",
    dag_display_name="Deploy a version",
    description=__doc__,
    doc_md=docs.DEPLOY_DOC,
    schedule=None,
    params=params.deploy(),
    **dag_defaults(),
) as dag:
    p = params_of(dag)

    chosen = choose_version()
    deploy = DeployEndpointOperator(
        task_id="deploy",
        endpoint_name=chosen["endpoint_name"],
        package=chosen,
        replace_endpoint=p("replace_endpoint"),
        instance_type=chosen["instance_type"],
        instance_count=chosen["instance_count"],
        max_count=chosen["max_count"],
        canary_percent=p("canary_percent"),
        bake_seconds=p("bake_seconds"),
        capture_percent=chosen["capture_percent"],
        capture_days=chosen["capture_days"],
        inlets=[assets.MODELS],
        outlets=[assets.ENDPOINT],
        on_success_callback=PipelineNotifier("deployed"),
    )
    answers = smoke_test(chosen, chosen, deploy.output)
    # Teardowns always run, and do not decide whether the run succeeded.
    stop_leftovers = StopLeftoversOperator(
        task_id="stop_leftovers", endpoint_name=chosen["endpoint_name"]
    ).as_teardown()

    answers >> keep_champion(chosen) >> stop_leftovers

    finish(dag)
