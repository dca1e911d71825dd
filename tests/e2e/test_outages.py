"""Outages in the middle of a run: it ends well all the same, and each job is paid for once.

PostgreSQL crashes, every component is replaced as in a rolling update, the worker's disk is full. One stack for all:
Airflow on PostgreSQL, its logs on a small disk of their own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.services import is_ready, services
from launcher.settings import Secrets
from tests.e2e.conftest import make_laptop
from tests.e2e.params.stage import Stage, stage_on
from tests.e2e.postgres import Postgres
from tests.e2e.stage import QUICK_TO_NOTICE

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1800)]

LONGEST = 1500.0
MEGABYTE = b"\0" * 2**20


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture(scope="module")
def stage(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    laptop = make_laptop(tmp_path_factory.mktemp("outages"))
    laptop.environ |= {**QUICK_TO_NOTICE, "ML_PIPELINE_DATABASE": postgres.url}
    Secrets.load_or_create(laptop.home)  # marks the folder as one of the launcher's
    logs = laptop.home / "airflow" / "logs"
    logs.mkdir(parents=True)
    mounted = os.geteuid() == 0 and _mount(logs)
    try:
        with stage_on(laptop) as up:
            yield up
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", logs], check=True)


def _mount(folder: Path) -> bool:
    argv = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    return subprocess.run(argv, check=False, stderr=subprocess.DEVNULL).returncode == 0


def start(stage: Stage, name: str) -> str:
    """Start a run that is a piece of work of its own."""
    return stage.start(dataset_name=name, endpoint_name=name, tune_mode="job", trials=2)


def reach(stage: Stage, run_id: str, task: str) -> None:
    """Wait until a job of the task is in progress."""
    stage.wait(
        lambda: any(name.startswith(f"{task}-") for name in stage.jobs(run_id)), f"a job of {task}", LONGEST
    )


def end_well(stage: Stage, run_id: str) -> None:
    stage.finish(run_id, "success", seconds=LONGEST)
    stage.paid_once(run_id)


def pids(stage: Stage) -> dict[str, int]:
    """Return the components of Airflow. local_aws stays, as AWS would: it stops its jobs when it is told to end."""
    state = json.loads((stage.settings.home / "supervisor.json").read_text())
    return {name: child["pid"] for name, child in state["children"].items() if name != "local_aws"}


def replaced(stage: Stage, before: dict[str, int]) -> None:
    """Wait until others run in their place and answer."""

    def done() -> bool:
        now = pids(stage)
        others = all(now[name] not in (0, pid) for name, pid in before.items())
        return others and all(is_ready(service) for service in services(stage.settings))

    stage.wait(done, f"others in the place of {', '.join(before)}", LONGEST)


def test_postgresql_crashes_and_comes_back(stage: Stage, postgres: Postgres) -> None:
    run_id = start(stage, "database")
    for task in ("tune", "train"):
        reach(stage, run_id, task)
        postgres.stop()
        postgres.start()
    end_well(stage, run_id)


def test_every_component_is_replaced(stage: Stage) -> None:
    run_id = start(stage, "update")
    reach(stage, run_id, "tune")
    before = pids(stage)
    for pid in before.values():
        os.kill(pid, signal.SIGTERM)
    replaced(stage, before)
    reach(stage, run_id, "train")
    for name in pids(stage):
        before = {name: pids(stage)[name]}
        os.kill(before[name], signal.SIGTERM)
        replaced(stage, before)
    end_well(stage, run_id)


def test_the_disk_of_the_worker_is_full_for_a_while(stage: Stage) -> None:
    logs = stage.settings.airflow_home / "logs"
    if not os.path.ismount(logs):
        pytest.skip("needs the right to mount a small disk")
    run_id = start(stage, "full")
    reach(stage, run_id, "tune")
    filler, before = logs / "filler", pids(stage)["triggerer"]
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(MEGABYTE)
        except OSError:
            pass
    try:
        # A task fails for it, or the triggerer ends: no log can be written.
        stage.wait(
            lambda: (
                {"up_for_retry", "queued", "scheduled"} & set(stage.states(run_id).values())
                or pids(stage)["triggerer"] != before
            ),
            "a component that finds no space",
            LONGEST,
        )
    finally:
        filler.unlink()
    end_well(stage, run_id)
