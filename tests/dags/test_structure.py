"""The DAGs as graphs: they import cleanly, and their edges, rules and teardowns are what they should be."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, TriggerRule
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from ml_pipeline.dag import params

ROOT = Path(__file__).parents[2]
EDGES = {
    "plan": {"upload", "weights", "teacher", "approve"},
    "upload": {
        "embed",
        "embed_teacher",
        "check_data",
        "tune",
        "train",
        "ec2.create",
        "ec2.train",
        "evaluate",
        "gate",
        "register",
        "smoke_test",
    },
    "weights": {"embed", "tune", "train", "ec2.train"},
    "embed": {"check_data", "tune", "train", "ec2.train"},
    "teacher": {"embed_teacher"},
    "embed_teacher": {"tune", "train", "ec2.train"},
    "check_data": {"tune"},
    "tune": {"choose", "train", "ec2.train"},
    "choose": {"train", "ec2.create"},
    "train": {"evaluate"},
    "ec2.create": {"ec2.train", "ec2.terminate"},
    "ec2.train": {"evaluate", "ec2.terminate"},
    "ec2.terminate": {"bill"},
    "evaluate": {"gate", "register", "approve", "smoke_test"},
    "gate": {"register", "approve"},
    "register": {"approve", "deploy"},
    "approve": {"deploy"},
    "deploy": {"smoke_test"},
    "smoke_test": {"bill"},
    "bill": {"stop_leftovers"},
    "stop_leftovers": set(),
}


@pytest.fixture(scope="module")
def bag() -> DagBag:
    return DagBag(str(ROOT / "dags"))


def dag(bag: DagBag, dag_id: str) -> DAG:
    found = bag.dags[dag_id]
    assert isinstance(found, DAG)
    return found


def test_every_file_imports(bag: DagBag) -> None:
    assert bag.import_errors == {}
    assert set(bag.dags) == {
        "train_and_deploy",
        "scheduled_retraining",
        "batch_predict",
        "janitor",
        "teardown",
        "deploy",
        "watch",
        "retraining_proposal",
    }


def test_every_dag_has_a_form_that_its_first_task_checks(bag: DagBag) -> None:
    forms = params.forms()
    assert set(forms) == set(bag.dags)
    for dag_id, form in forms.items():
        assert set(dag(bag, dag_id).params) == set(form())


def test_only_what_starts_by_itself_waits_to_be_switched_on(bag: DagBag) -> None:
    paused = {name for name, found in bag.dags.items() if found.is_paused_upon_creation}
    assert paused == {"scheduled_retraining", "watch"}


def test_there_are_no_plugin_errors() -> None:
    from airflow import plugins_manager

    plugins, errors = plugins_manager._get_plugins()
    assert errors == {}
    assert "ml_pipeline" in {plugin.name for plugin in plugins}


def test_the_edges_of_train_and_deploy(bag: DagBag) -> None:
    tasks = dag(bag, "train_and_deploy").task_dict
    assert {name: set(task.downstream_task_ids) for name, task in tasks.items()} == EDGES


def test_only_the_branch_loosens_the_trigger_rule(bag: DagBag) -> None:
    tasks = dag(bag, "train_and_deploy").task_dict
    loose = {
        name: task.trigger_rule
        for name, task in tasks.items()
        if task.trigger_rule is not TriggerRule.ALL_SUCCESS and not task.is_teardown
    }
    assert loose == {"evaluate": TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS}


@pytest.mark.parametrize(
    ("dag_id", "teardowns"),
    [
        ("train_and_deploy", {"bill", "stop_leftovers", "ec2.terminate"}),
        ("batch_predict", {"stop_leftovers"}),
        ("deploy", {"stop_leftovers"}),
        ("scheduled_retraining", set()),
    ],
)
def test_what_is_paid_is_torn_down_and_never_decides_the_run(
    bag: DagBag, dag_id: str, teardowns: set[str]
) -> None:
    tasks = dag(bag, dag_id).task_dict
    found = {name: task for name, task in tasks.items() if task.is_teardown}
    assert set(found) == teardowns
    assert not any(task.on_failure_fail_dagrun for task in found.values())


def test_the_machine_is_ended_by_its_own_teardown(bag: DagBag) -> None:
    tasks = dag(bag, "train_and_deploy").task_dict
    assert tasks["ec2.create"].is_setup
    assert tasks["ec2.create"].task_id in tasks["ec2.terminate"].upstream_task_ids


def test_a_task_whose_worker_died_starts_again_soon(bag: DagBag) -> None:
    # No policy is asked about a worker that left no exception, and Airflow's own pause is five minutes.
    pauses = {task.retry_delay for dag in bag.dags.values() for task in dag.tasks if task.retries}
    assert pauses == {timedelta(seconds=10)}


def test_every_dag_says_what_it_is_for(bag: DagBag) -> None:
    for found in bag.dags.values():
        assert found.doc_md
        assert found.tags == {"ml-pipeline"}
        assert all(task.has_on_failure_callback for task in found.tasks)


def test_params_are_documented_and_bounded(bag: DagBag) -> None:
    form = dag(bag, "train_and_deploy").params
    for name, param in form.items():
        schema = form.get_param(name).schema
        assert schema.get("section"), name
        assert schema.get("title"), name
        assert schema.get("description_md"), name
        bounded = {"enum", "pattern", "maximum", "minimum", "minLength"} & set(schema)
        assert bounded or schema["type"] in ("boolean", ["object", "null"], "object") or name == "data", (
            name,
            param,
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trials", 0),
        ("strategy", "magic"),
        ("dataset_name", "Dogs!"),
        ("train_instance_type", "m5.xlarge"),
        ("keep_alive", 7200),
        ("min_accuracy", 1.5),
        ("hyperparameters", {"epoch": 3}),
        ("hyperparameters", {"dropout": 2}),
        ("hyperparameters", {"epochs": 0}),
        ("endpoint_name", "-dogs"),
        ("endpoint_name", "a-" * 40 + "a"),
        ("max_job_hours", 28 * 24 + 1),
    ],
)
def test_a_wrong_value_is_refused_before_a_run_exists(bag: DagBag, name: str, value: object) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    param = dag(bag, "train_and_deploy").params.get_param(name)
    with pytest.raises(ParamValidationError):
        param.resolve(value)


def test_both_looks_at_the_photos_of_a_retraining_are_the_same(bag: DagBag) -> None:
    decide = dag(bag, "scheduled_retraining").task_dict["decide"]
    upload = dag(bag, "scheduled_retraining").task_dict["upload"]
    names = ["data", "dataset_name", "seed", "group_lookalikes"]
    assert [getattr(upload, name)._name for name in names] == names
    assert [argument._name for argument in decide.op_args[1:4]] == [
        "data",
        "seed",
        "group_lookalikes",
    ]


def test_no_heavy_module_and_no_network_at_import() -> None:
    program = (
        "import socket, sys\n"
        "def refuse(*_): raise RuntimeError('network at import')\n"
        "socket.socket.connect = refuse\n"
        "import runpy, pathlib\n"
        f"for path in sorted(pathlib.Path({str(ROOT / 'dags')!r}).glob('*.py')): runpy.run_path(str(path))\n"
        "heavy = {'torch', 'torchvision', 'sagemaker', 'pandas', 'onnxruntime'} & set(sys.modules)\n"
        "print(sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_a_proposal_is_a_run_of_its_own_that_the_next_look_does_not_wait_for(bag: DagBag) -> None:
    watch, proposal = dag(bag, "watch"), dag(bag, "retraining_proposal")
    assert watch.task_dict["begin"].downstream_task_ids == {"look"}
    assert "conclude" in watch.task_dict["look"].downstream_task_ids
    assert watch.task_dict["conclude"].downstream_task_ids == {"proposals", "stop_leftovers"}
    assert watch.task_dict["stop_leftovers"].is_teardown
    assert watch.max_active_runs == 1
    propose = watch.task_dict["propose"].partial_kwargs
    assert propose["trigger_dag_id"] == "retraining_proposal"
    assert propose["skip_when_already_exists"] is True
    assert not propose.get("wait_for_completion")
    assert proposal.task_dict["conf"].downstream_task_ids == {"ask", "train"}
    assert proposal.task_dict["ask"].downstream_task_ids == {"train"}
    assert proposal.task_dict["train"].trigger_dag_id == "train_and_deploy"


def test_a_value_of_a_result_is_taken_only_where_the_task_stores_it_by_itself(bag: DagBag) -> None:
    taken = set()
    for each in bag.dags.values():
        for task in each.tasks:
            for name in task.template_fields:
                value = getattr(task, name, None)
                if isinstance(value, PlainXComArg) and value.key != BaseXCom.XCOM_RETURN_KEY:
                    taken.add(value.operator)
    assert {task.task_id for task in taken} >= {"upload", "choose_version"}
    assert {task.task_id for task in taken if not task.multiple_outputs} == set()
