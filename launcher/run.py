"""The main job: bring the services up, start `train_and_deploy` over REST, show it, sum it up."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import requests
from rich.console import Console
from rich.markup import escape

from launcher import inputs, last_run, preflight, summary, supervisor
from launcher.airflow_api import AirflowClient, AirflowError
from launcher.progress import FINISHED, ProgressView, latest_count, state_of
from launcher.services import code_version, is_ready, services
from launcher.settings import Secrets, Settings, SettingsError, airflow_environment

DAG_ID = "train_and_deploy"
STARTING_FILE = "starting.lock"
START_DEADLINE_SECONDS = 180.0
MOST_STARTS = 3
POLL_SECONDS = 1.0
MOST_LISTED = 10
Answer = TypeVar("Answer")


class RunError(RuntimeError):
    """The run could not be started or watched; the message names the log to read."""


def run(settings: Settings, console: Console) -> int:
    """`make run`: 0 only if the endpoint answered as the evaluation did."""
    chosen = choose_inputs(settings, console)
    settings = bring_up(settings, console)
    client = connect(settings)
    wait_for_dag(client, settings, console)
    conf = run_conf(settings, chosen)
    check_conf(client, conf)
    run_id = client.trigger(DAG_ID, conf)
    console.print(
        f"run [bold]{run_id}[/] of {DAG_ID}: {settings.airflow_url}/dags/{DAG_ID}/runs/{run_id}",
        soft_wrap=True,
    )
    state = watch(client, run_id, console)
    results = patiently(lambda: {task: client.xcom(DAG_ID, run_id, task) for task in summary.TASKS})
    last_run.save(settings.home, run_id, results)
    summary.print_summary(console, results, chosen.notes)
    outcome = summary.judge(state, results)
    if not outcome.succeeded:
        explain_failure(client, settings, run_id, console)
    color = "green" if outcome.succeeded else "red"
    console.print(f"\n[{color}]{'done' if outcome.succeeded else 'failed'}[/]: {escape(outcome.reason)}")
    print_addresses(settings, console)
    return 0 if outcome.succeeded else 1


def choose_inputs(settings: Settings, console: Console) -> inputs.Inputs:
    """Settle and check what the run works on, before any service is started."""
    from launcher.progress import download_bar
    from model_code.data.scan import preflight as look_at

    preflight.check_architecture(settings.architecture)
    preflight.check_disk(settings.home)
    preflight.claim_home(settings.home)
    preflight.check_conf(settings, DAG_ID)
    with download_bar(console) as progress:
        chosen = inputs.choose(settings, console.print, progress)
    found = look_at(chosen.data)
    preflight.check_disk(settings.home, found.bytes)
    console.print(f"photos: {found.photos} in {len(found.counts)} classes, {escape(str(chosen.data))}")
    for rejected in found.rejected[:MOST_LISTED]:
        console.print(f"  left out: {escape(rejected.path)} ({escape(rejected.reason)})", highlight=False)
    if len(found.rejected) > MOST_LISTED:
        console.print(
            f"  and {len(found.rejected) - MOST_LISTED} more; the data set's manifest lists them all"
        )
    return chosen


def bring_up(settings: Settings, console: Console) -> Settings:
    """Start the services, or take those that are up; returns the settings that are in force."""
    preflight.check_disk(settings.home)
    preflight.claim_home(settings.home)
    with one_at_a_time(settings.home, console):
        return _bring_up(settings, console)


@contextmanager
def one_at_a_time(home: Path, console: Console) -> Iterator[None]:
    """Of two commands that want to start the services, the second waits and then finds them up."""
    with open(home / STARTING_FILE, "w") as lock:  # the kernel frees it however we end
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("another command is starting the services: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _bring_up(settings: Settings, console: Console) -> Settings:
    state = supervisor.read_state(settings.home)
    if state is not None:
        settings = in_force(settings, state)
        if may_stay(settings, state, console):
            return settings
    leftovers = supervisor.stop_everything(settings)  # of a supervisor that was killed
    if leftovers and state is None:
        console.print(f"stopped {len(leftovers)} processes left by an earlier run")
    preflight.check_ports(settings)
    migrate(settings, console)
    supervisor.start_in_background(settings)
    wait_until_ready(settings, console)
    return settings


def may_stay(settings: Settings, state: Mapping[str, Any], console: Console) -> bool:
    """Tell whether the running services can be used; stop those with older code, but never during a run."""
    if state.get("code") == code_version():
        wait_until_ready(settings, console)  # one of them may be starting again
        console.print("the services are already up")
        return True
    with suppress(RunError):  # what ends again and again with the older code may be what the newer one mends
        wait_until_ready(settings, console)
        if connect(settings).active_runs():
            console.print(
                "[yellow]note[/]  a run is in progress: the services keep running the code they were started with"
            )
            return True
    console.print("the code has changed since the services were started: restarting them")
    return False


def in_force(settings: Settings, state: Mapping[str, Any]) -> Settings:
    """Return the settings with the ports that a running supervisor uses."""
    ports = state["ports"]
    return replace(settings, airflow_port=ports["airflow"], local_aws_port=ports["local_aws"])


def migrate(settings: Settings, console: Console) -> None:
    """Create or migrate Airflow's database."""
    credentials = Secrets.load_or_create(settings.home)
    write_login(settings, credentials)
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = settings.logs / "migrate.log"
    with console.status("preparing Airflow's database"), open(log, "wb") as output:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("airflow")), "db", "migrate"],
            env={**os.environ, **airflow_environment(settings, credentials)},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise RunError(
            f"Airflow's database could not be prepared: see {log}, or start from scratch: make clean"
        )


def write_login(settings: Settings, credentials: Secrets) -> None:
    """Write the login that Airflow's auth manager reads."""
    settings.airflow_home.mkdir(parents=True, exist_ok=True)
    passwords = settings.airflow_home / "passwords.json"
    passwords.touch(mode=0o600)
    passwords.write_text(json.dumps({"admin": credentials.admin_password}))


def wait_until_ready(settings: Settings, console: Console) -> None:
    """Wait for every service with a health URL. Raises RunError naming the log of the one that is missing."""
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    missing = list(services(settings))
    with console.status("starting Airflow and local_aws") as status:
        while missing:
            missing = [service for service in missing if not is_ready(service)]
            status.update(f"starting {', '.join(service.name for service in missing)}")
            for service in missing:
                _give_up_on_repeated_ends(service.name, settings)
            _give_up_after(deadline, missing[0].name if missing else "", settings)
            time.sleep(0.3)


def _give_up_on_repeated_ends(name: str, settings: Settings) -> None:
    child = (supervisor.read_state(settings.home) or {}).get("children", {}).get(name, {})
    if child.get("restarts", 0) < MOST_STARTS or supervisor.is_alive(child):
        return
    log = settings.logs / f"{name}.log"
    lines = log.read_text(errors="replace").splitlines()
    said = [line for line in lines if line.strip() and not line.startswith("supervisor: ")]
    raise RunError(f"{name} ended {child['restarts']} times: {said[-1] if said else 'no output'} (see {log})")


def _give_up_after(deadline: float, name: str, settings: Settings) -> None:
    if name and time.monotonic() > deadline:
        raise RunError(f"{name} did not start: see {settings.logs / f'{name}.log'}, then make stop")


def connect(settings: Settings) -> AirflowClient:
    """Return a client of the run's Airflow, logged in as admin."""
    credentials = Secrets.load_or_create(settings.home)
    return AirflowClient(settings.airflow_url, "admin", credentials.admin_password)


def wait_for_dag(client: AirflowClient, settings: Settings, console: Console) -> None:
    """Wait until the DAG is parsed and the scheduler and triggerer are healthy."""
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    needed = ("scheduler", "triggerer", "dag_processor")
    with console.status(f"waiting for {DAG_ID}"):
        while True:
            health = patiently(client.health)
            unwell = [name for name in needed if health.get(name) != "healthy"]
            if not unwell and patiently(lambda: client.dag_exists(DAG_ID)):
                return
            if errors := patiently(client.import_errors):
                raise RunError(f"a DAG file cannot be imported:\n{errors[0]}")
            _give_up_after(deadline, (unwell or ["dag_processor"])[0].replace("_", "-"), settings)
            time.sleep(0.5)


def run_conf(settings: Settings, chosen: inputs.Inputs) -> dict[str, object]:
    """Return the DAG's params for this run; CONF wins over everything."""
    return {
        "data": str(chosen.data),
        "dataset_name": chosen.dataset_name,
        "weights": chosen.weights,
        "architecture": settings.architecture,
        "trials": settings.trials,
        "capture_percent": 100,
        "capture_days": 7,
        **settings.conf,
    }


def check_conf(client: AirflowClient, conf: Mapping[str, object], dag_id: str = DAG_ID) -> None:
    """Refuse names that are not params of the DAG, before a run exists.

    Raises:
        RunError: A name is unknown; the message names the nearest ones.
    """
    from ml_pipeline.costs.checks import refuse_unknown

    try:
        refuse_unknown(conf, client.param_names(dag_id), dag_id)
    except ValueError as error:
        raise RunError(f"CONF: {error}") from None


def watch(client: AirflowClient, run_id: str, console: Console) -> str:
    """Show the run until it ends; its final state. Survives an api-server that restarts or fails for a while."""
    asked: set[str] = set()

    def look() -> str:
        tasks = sorted(client.task_instances(DAG_ID, run_id), key=_task_order)
        if not view.planned and any(
            task["task_id"] == "plan" and state_of(task) == "success" for task in tasks
        ):
            view.planned = planned_seconds(client.xcom(DAG_ID, run_id, "plan") or {})
        view.update(tasks, _counts(client, run_id, tasks))
        ask_person(client, run_id, tasks, asked, console)
        return client.run_state(DAG_ID, run_id)

    with ProgressView(console) as view:
        while (state := patiently(look)) not in ("success", "failed"):
            time.sleep(POLL_SECONDS)
    return state


def planned_seconds(plan: Mapping[str, Any]) -> dict[str, float]:
    """Return the work of each task of a plan, in seconds; local_aws starts no instance, so without start-up."""
    tasks = {"ec2": "ec2.train"}
    return {tasks.get(row["step"], row["step"]): float(row["job_seconds"]) for row in plan.get("steps", [])}


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Return Airflow's answer; ask again while it is out of reach or fails itself (5xx, such as a locked database).

    Raises RunError when it stays so, and AirflowError at once when it refuses.
    """
    away_since: float | None = None
    while True:
        try:
            return ask()
        except (requests.RequestException, AirflowError) as error:
            if isinstance(error, AirflowError) and error.status < 500:
                raise
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > START_DEADLINE_SECONDS:
                raise RunError(f"Airflow's api-server stopped answering ({error}): see make status") from None
        time.sleep(POLL_SECONDS)


def ask_person(
    client: AirflowClient, run_id: str, tasks: list[dict[str, Any]], asked: set[str], console: Console
) -> None:
    """Say once where a task that waits for a person is answered; `asked` holds those already said."""
    for task in tasks:
        name = task["task_id"]
        if _waits_for_a_person(task) and name not in asked:
            asked.add(name)
            where = f"{client.url}/dags/{DAG_ID}/runs/{run_id}/tasks/{name}/required_actions"
            console.print(f"[yellow]{name} waits for you[/]: {where}", soft_wrap=True, highlight=False)


def _waits_for_a_person(task: Mapping[str, Any]) -> bool:
    """Tell whether a task asks someone; on Airflow 3.2 it is deferred to a trigger meanwhile."""
    waits_on = str((task.get("trigger") or {}).get("classpath", ""))
    return state_of(task) == "awaiting_input" or waits_on.endswith("HITLTrigger")


def _task_order(task: Mapping[str, Any]) -> tuple[int, str]:
    known = {name: place for place, name in enumerate(summary.TASKS)}
    return known.get(task["task_id"], len(known)), task["task_id"]


def _counts(client: AirflowClient, run_id: str, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    counts = {}
    for task in tasks:
        if state_of(task) not in ("running", "deferred"):
            continue
        try:
            found = latest_count(client.log(DAG_ID, run_id, task))
        except AirflowError:
            continue  # no log yet
        if found:
            counts[task["task_id"]] = found
    return counts


def explain_failure(
    client: AirflowClient, settings: Settings, run_id: str, console: Console, dag_id: str = DAG_ID
) -> None:
    """Say which task failed, why, and where its log is."""
    for task in client.task_instances(dag_id, run_id):
        if state_of(task) not in FINISHED or state_of(task) != "failed":
            continue
        reasons = client.errors(dag_id, run_id, task)
        # A process that was killed leaves no exception.
        reasons = reasons or [
            line for line in client.log(dag_id, run_id, task) if line.strip() and not line.startswith("::")
        ]
        name, reason = task["task_id"], reasons[-1] if reasons else "no log was written"
        folder = settings.airflow_home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={name}"
        console.print(f"\n[red]task {name} failed[/]: {escape(reason)}", soft_wrap=True)
        console.print(f"its log: {folder}/attempt={task['try_number']}.log", soft_wrap=True)


def print_addresses(settings: Settings, console: Console) -> None:
    """Print the addresses, the login and the next commands."""
    password = Secrets.load_or_create(settings.home).admin_password
    console.print(f"Airflow    {settings.airflow_url}  (admin / {password})", highlight=False)
    console.print(f"local_aws  {settings.local_aws_url}", highlight=False)
    console.print(f"console    {settings.airflow_url}/ml-pipeline/", highlight=False)
    console.print("predict    make predict IMAGE=photo.jpg, or a folder", highlight=False)
    console.print("next       make watch, make rollback, or make run with more photos", highlight=False)
    console.print("stop       make stop", highlight=False)


SHOWN_AS_ONE_LINE = (SettingsError, preflight.PreflightError, RunError)
