"""`make status`: what is up, on which ports, and how the last run ended."""

from __future__ import annotations

import json

import requests
from rich.console import Console
from rich.table import Table

from launcher import supervisor
from launcher.run import LAST_RUN_FILE, in_force, print_addresses
from launcher.settings import Settings


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
    last_run = settings.home / LAST_RUN_FILE
    if last_run.exists():
        record = json.loads(last_run.read_text())
        console.print(f"last run   {record['run_id']}, endpoint {record['endpoint_name'] or 'none'}")
    print_addresses(running, console)
    return 0 if everything_up else 1


def _print_local_aws(settings: Settings, console: Console) -> None:
    try:
        health = requests.get(f"{settings.local_aws_url}/_local_aws/health", timeout=5).json()
    except (requests.RequestException, ValueError):
        console.print("local_aws  does not answer")
        return
    told = ", ".join(f"{key} {value}" for key, value in health.items() if isinstance(value, int | str))
    console.print(f"local_aws  {told}")
