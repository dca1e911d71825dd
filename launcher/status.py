"""`make status`: what is up, on which ports, and how the last run ended."""

from __future__ import annotations

import requests
from rich.console import Console
from rich.table import Table

from launcher import last_run, supervisor
from launcher.airflow_api import AirflowError
from launcher.progress import state_of
from launcher.run import DAG_ID, connect, in_force, print_addresses
from launcher.settings import Settings

# State of a run -> states of the tasks that explain it.
TOLD = {"running": ("running", "deferred", "awaiting_input", "up_for_retry"), "failed": ("failed",)}


def print_status(settings: Settings, console: Console) -> int:
    """0 when everything that should be up is up, 1 otherwise."""
    state = supervisor.read_state(settings.home)
    if state is None:
        console.print("nothing is up: make run starts it")
        return 1
    table = Table()
    for name in ("service", "pid", "state", "restarts", "last exit"):
        table.add_column(name)
    everything_up = True
    for name, child in state["children"].items():
        up = child["pid"] and supervisor.is_alive(child)
        everything_up = everything_up and bool(up)
        last_exit = "" if child["last_exit"] is None else str(child["last_exit"])
        condition = "up" if up else "restarting"
        table.add_row(name, str(child["pid"] or ""), condition, str(child["restarts"]), last_exit)
    console.print(table)
    running = in_force(settings, state)
    _print_local_aws(running, console)
    _print_last_run(running, console)
    if deployed := last_run.endpoint_name(settings.home):
        console.print(f"endpoint   {deployed}", highlight=False)
    print_addresses(running, console)
    return 0 if everything_up else 1


def _print_last_run(settings: Settings, console: Console) -> None:
    """Describe the newest run, watched or not: its state and its current task."""
    client = connect(settings)
    try:
        newest = {"order_by": "-run_after", "limit": 1}
        for run in client.call("GET", f"dags/{DAG_ID}/dagRuns", params=newest)["dag_runs"]:
            tasks = client.task_instances(DAG_ID, run["dag_run_id"])
            told = [task["task_id"] for task in tasks if state_of(task) in TOLD.get(run["state"], ())]
            doing = f" ({', '.join(told)})" if told else ""
            console.print(f"last run   {run['dag_run_id']}: {run['state']}{doing}", highlight=False)
    except (requests.RequestException, AirflowError) as error:
        console.print(f"last run   Airflow does not answer ({type(error).__name__})")


def _print_local_aws(settings: Settings, console: Console) -> None:
    try:
        health = requests.get(f"{settings.local_aws_url}/_local_aws/health", timeout=5).json()
    except (requests.RequestException, ValueError):
        console.print("local_aws  does not answer")
        return
    told = ", ".join(f"{key} {value}" for key, value in health.items() if isinstance(value, int | str))
    console.print(f"local_aws  {told}")
