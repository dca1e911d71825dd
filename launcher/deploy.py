"""`make deploy VERSION=3` and `make rollback`: bring another model version into service."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

from launcher import supervisor
from launcher.progress import ProgressView, state_of
from launcher.run import POLL_SECONDS, RunError, check_conf, connect, explain_failure, in_force, patiently
from launcher.settings import Settings

DAG_ID = "deploy"


def deploy(settings: Settings, console: Console, conf: Mapping[str, object]) -> int:
    """Run the DAG `deploy` with `conf`, show it, and return 0 if the version serves.

    Raises:
        RunError: Nothing is up, or a param is unknown.
    """
    state = supervisor.read_state(settings.home)
    if state is None:
        raise RunError("nothing is up: make up starts the services, make run trains a first version")
    settings = in_force(settings, state)
    client = connect(settings)
    conf = {**conf, **settings.conf}
    check_conf(client, conf, DAG_ID)
    run_id = client.trigger(DAG_ID, conf)
    console.print(f"run [bold]{run_id}[/] of {DAG_ID}: {settings.airflow_url}/dags/{DAG_ID}/runs/{run_id}")
    with ProgressView(console) as view:
        while (ended := patiently(lambda: client.run_state(DAG_ID, run_id))) not in ("success", "failed"):
            view.update(patiently(lambda: client.task_instances(DAG_ID, run_id)), {})
            time.sleep(POLL_SECONDS)
        tasks = patiently(lambda: client.task_instances(DAG_ID, run_id))
        view.update(tasks, {})
    chosen = client.xcom(DAG_ID, run_id, "choose_version") or {}
    if ended == "failed" or any(state_of(task) == "failed" for task in tasks):
        explain_failure(client, settings, run_id, console, DAG_ID)
        console.print("\n[red]failed[/]: the version is not in service")
        return 1
    tested = client.xcom(DAG_ID, run_id, "smoke_test") or {}
    console.print(
        f"\n[green]done[/]: version {chosen.get('version')} of {escape(str(chosen.get('dataset_name')))} serves at "
        f"{escape(str(chosen.get('endpoint_name')))}; {tested.get('agreed')} of {tested.get('photos')} test photos "
        "answered as evaluated"
    )
    return 0
