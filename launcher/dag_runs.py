"""`make deploy`, `make rollback` and `make watch`: run another DAG, show it, and say what came out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from launcher import supervisor
from launcher.airflow_api import AirflowClient
from launcher.progress import ProgressView, state_of
from launcher.run import POLL_SECONDS, RunError, check_conf, connect, explain_failure, in_force, patiently
from launcher.settings import Settings


def deploy(settings: Settings, console: Console, conf: Mapping[str, object]) -> int:
    """Run the DAG `deploy` with `conf`, show it, and return 0 if the version serves.

    Raises:
        RunError: Nothing is up, or a param is unknown.
    """
    settings, client = _up(settings)
    run_id, succeeded = _run(client, settings, console, "deploy", {**conf, **settings.conf})
    if not succeeded:
        console.print("\n[red]failed[/]: the version is not in service")
        return 1
    chosen = client.xcom("deploy", run_id, "choose_version") or {}
    tested = client.xcom("deploy", run_id, "smoke_test") or {}
    console.print(
        f"\n[green]done[/]: version {chosen.get('version')} of {escape(str(chosen.get('dataset_name')))} serves at "
        f"{escape(str(chosen.get('endpoint_name')))}; {tested.get('agreed')} of {tested.get('photos')} test photos "
        "answered as evaluated"
    )
    return 0


def watch(settings: Settings, console: Console, endpoint: str) -> int:
    """Run the DAG `watch` now, and from now on every hour; return 0 if it succeeded, whatever the looks found.

    Raises:
        RunError: Nothing is up, or a param is unknown.
    """
    settings, client = _up(settings)
    conf = {"endpoint_name": endpoint, **settings.conf}
    run_id, succeeded = _run(client, settings, console, "watch", conf)
    begun = client.xcom("watch", run_id, "begin") or []
    for place in range(len(begun)):
        look = client.xcom("watch", run_id, "conclude", place)
        if look:
            console.print(
                f"\n[bold]{escape(look['endpoint_name'])}[/], look {look['number']} at {look['photos']} photos: "
                f"{look['verdict']}: {escape(look['reason'])}\n{look['queued']} photos to review\n"
                f"page {_page_url(settings, look['page_uri'])}",
                soft_wrap=True, highlight=False,
            )  # fmt: skip
    if not succeeded:
        console.print("\n[red]failed[/]: the look did not end")
        return 1
    if not begun:
        lines = _lines(client, run_id, "begin", "endpoint ")
        console.print("\n".join(["\nnothing to look at", *map(escape, lines)]), soft_wrap=True)
    console.print("\n[green]done[/]: Airflow looks again every hour while the services are up")
    return 0


def _up(settings: Settings) -> tuple[Settings, AirflowClient]:
    """Return the settings in force and a client of Airflow."""
    state = supervisor.read_state(settings.home)
    if state is None:
        raise RunError("nothing is up: make up starts the services, make run trains a first version")
    settings = in_force(settings, state)
    return settings, connect(settings)


def _run(
    client: AirflowClient,
    settings: Settings,
    console: Console,
    dag_id: str,
    conf: Mapping[str, object],
) -> tuple[str, bool]:
    """Run a DAG and show it to its end; explain a failure. Returns the run's id, and true if no task failed."""
    check_conf(client, conf, dag_id)
    run_id = client.trigger(dag_id, conf)
    console.print(
        f"run [bold]{run_id}[/] of {dag_id}: {settings.airflow_url}/dags/{dag_id}/runs/{run_id}",
        soft_wrap=True,
    )

    def tasks() -> list[dict[str, Any]]:
        return patiently(lambda: client.task_instances(dag_id, run_id))

    with ProgressView(console) as view:
        while (ended := patiently(lambda: client.run_state(dag_id, run_id))) not in ("success", "failed"):
            view.update(tasks(), {})
            time.sleep(POLL_SECONDS)
        view.update(tasks(), {})
    succeeded = ended == "success" and not any(state_of(task) == "failed" for task in tasks())
    if not succeeded:
        explain_failure(client, settings, run_id, console, dag_id)
    return run_id, succeeded


def _page_url(settings: Settings, uri: str) -> str:
    """Return an address of the page that a browser opens, for a week."""
    from launcher.predict import client

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    given = {"Bucket": bucket, "Key": key, "ResponseContentType": "text/html; charset=utf-8"}
    url: str = client("s3", settings).generate_presigned_url("get_object", Params=given, ExpiresIn=604800)
    return url


def _lines(client: AirflowClient, run_id: str, task_id: str, prefix: str) -> list[str]:
    """Return the log lines of a task of `watch` that begin with `prefix`."""
    (task,) = (task for task in client.task_instances("watch", run_id) if task["task_id"] == task_id)
    return [line for line in client.log("watch", run_id, task) if line.startswith(prefix)]
