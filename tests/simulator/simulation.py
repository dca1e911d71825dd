"""One simulated schedule: runs that meet, faults, crashes and users; and what has to hold afterwards."""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.requests.types import Document
from tests.simulator import runs
from tests.simulator.airflow import Run, Scheduler
from tests.simulator.clock import Loop
from tests.simulator.queue import Readers
from tests.simulator.runs import ENDPOINT, PHOTOS_A_FILE
from tests.simulator.world import World

ENVIRONMENT = {
    "ML_PIPELINE_BUCKET": "bucket",
    "ML_PIPELINE_ROLE_ARN": "arn:aws:iam::1:role/r",
    "AWS_DEFAULT_REGION": "us-east-1",
    "ML_PIPELINE_INSTANCE_IMAGE": "ami-12345678",
    "ML_PIPELINE_POLL_SECONDS": "300",
}
# A kill insists on stopping its work for this long, even if the run is over by then.
_LATE_SECONDS = 1000.0
# Runs that meet, by the DAG and the branch they take.
_MEETINGS = (
    ("sagemaker", "sagemaker"),
    ("sagemaker", "ec2"),
    ("ec2", "ec2"),
    ("sagemaker", "batch"),
    ("ec2", "batch"),
    ("batch", "watch", "watch"),
    ("watch", "watch", "watch"),
)


@dataclass
class Outcome:
    """The journal of a schedule, and the invariants that it broke."""

    journal: list[str]
    broken: list[str]


def simulate(seed: int, patch: Any, faults: float | None = None, full_disk: float = 0.15) -> Outcome:
    """Run the schedule of `seed`.

    Args:
        seed: Decides on everything.
        patch: pytest's monkeypatch.
        faults: Probability that a call fails or loses its answer; by default the seed chooses it.
        full_disk: Probability that the workers' disk is full for a time.
    """
    chance = random.Random(seed).choice([0.0, 0.1, 0.3]) if faults is None else faults
    world = World(seed, chance, full_disk)
    for name, value in ENVIRONMENT.items():
        patch.setenv(name, value)
    patch.delenv("LOCAL_AWS_URL", raising=False)
    scheduler = Scheduler(world)
    _install(patch, world, scheduler)
    runs.prepare(world)
    _capture_while_listed(world)
    for number, kind in enumerate(world.random.choice(_MEETINGS), 1):
        scheduler.runs.append(_run(world, kind, number))
    watch = _Watch(world, scheduler)
    readers = Readers(world) if world.random.random() < 0.3 else None
    loop = Loop(world.clock)
    try:
        loop.run_until_complete(asyncio.wait_for(_all(world, scheduler, readers), 40 * 86400))
        world.clock.now += 7200
        world.settle()
        watch.at_the_end()
    finally:
        loop.close()
    return Outcome(world.journal, watch.broken + (readers.broken() if readers else []))


def _run(world: World, kind: str, number: int) -> Run:
    arn, run_id = f"arn:package/{number}", f"run-{number}"
    world.packages[arn] = runs.package(arn, number)
    if kind == "watch":
        return runs.watch(run_id, world)
    return runs.batch(run_id) if kind == "batch" else runs.training(run_id, arn, on_ec2=kind == "ec2")


async def _all(world: World, scheduler: Scheduler, readers: Readers | None) -> None:
    captures = asyncio.create_task(_captures(world))
    work = [scheduler.drive(run) for run in scheduler.runs]
    await asyncio.gather(*work, *([readers.work()] if readers else []))
    captures.cancel()
    # A kill may still be at work: it insists through outages.
    await asyncio.sleep(2 * 3600)
    if world.disk_full[1]:
        # The next run ends what those left that found no space to end it themselves.
        await asyncio.sleep(max(0.0, world.disk_full[1] - world.now))
        world.faults = 0.0
        scheduler.runs.append(runs.empty("later"))
        await scheduler.drive(scheduler.runs[-1])


def _capture_while_listed(world: World) -> None:
    """Let photos arrive just after a user of the bucket has listed those before."""
    listed = world.s3_list_objects_v2

    def call(**request: Any) -> dict[str, Any]:
        answer = listed(**request)
        if request["Prefix"] == runs.CAPTURES and world.random.random() < 0.3:
            runs.capture(world, world.random.randrange(100, 1000))
        return answer

    world.s3_list_objects_v2 = call  # type: ignore[method-assign, assignment]


async def _captures(world: World) -> None:
    for number in range(3, 12):
        await asyncio.sleep(world.random.choice([10.0, 400.0, 3000.0]))
        runs.capture(world, number)


def _install(patch: Any, world: World, scheduler: Scheduler) -> None:
    from ml_pipeline.aws import jobs
    from ml_pipeline.aws.clients import AwsAccess
    from ml_pipeline.operators import deploy, leftovers
    from ml_pipeline.triggers import base, lock, photo_stream
    from tests.simulator.world import AsyncClient, Client

    async def async_client(self: AwsAccess, service: str) -> AsyncClient:
        return AsyncClient(world, service)

    def in_line(function: Any) -> Any:
        async def call() -> Any:
            return function()

        return call

    patch.setattr(AwsAccess, "client", lambda self, service: Client(world, service))
    patch.setattr(AwsAccess, "async_client", async_client)
    patch.setattr(base, "random", random.Random(world.seed))
    patch.setattr(base, "task_is_over", scheduler.task_is_over)
    patch.setattr(lock, "sync_to_async", in_line)
    patch.setattr(lock, "run_is_over", lambda _, run_id: scheduler.is_over(run_id))
    patch.setattr(deploy, "run_is_over", lambda _, run_id: scheduler.is_over(run_id))
    patch.setattr(leftovers, "run_has_ended", lambda _, run_id: scheduler.has_ended(run_id))
    # Not time.sleep itself: threads that other tests left behind would turn the clock.
    patch.setattr(jobs, "time", SimpleNamespace(sleep=world.clock.sleep))
    patch.setattr(photo_stream, "time", SimpleNamespace(monotonic=lambda: world.now))


class _Watch:
    """Checks the invariants, some of them at each call."""

    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self.world, self.scheduler, self.broken = world, scheduler, list[str]()
        self.counted: set[str] = set()
        for name in ("create_endpoint", "update_endpoint"):
            self._wrap(f"sagemaker_{name}", getattr(self, f"_{name}"))
        self._watch_jobs()
        self._watch_looks()

    def _wrap(self, name: str, check: Any) -> None:
        original = getattr(self.world, name)

        def call(**request: Any) -> Any:
            answer = original(**request)
            check(request)
            return answer

        setattr(self.world, name, call)

    def _watch_jobs(self) -> None:
        create = self.world.create_job

        def checked(kind: JobKind, request: dict[str, Any]) -> dict[str, Any]:
            answer = create(kind, request)
            self._only_one(request[kind.calls.name])
            return answer

        self.world.create_job = checked  # type: ignore[method-assign, assignment]

    def _only_one(self, name: str) -> None:
        piece = re.sub(r"-\d+$", "", name)
        for job in self.world.jobs.values():
            if job.name == name or not job.name.startswith(piece):
                continue
            status = job.status(self.world.now)
            if status in ("InProgress", "Completed"):
                self._break(f"{name} was created although {job.name} is {status}")

    def _watch_looks(self) -> None:
        put, key = self.world.s3_put_object, f"watch/{ENDPOINT}/state.json"

        def checked(**request: Any) -> dict[str, Any]:
            before = json.loads(self.world.objects.get(key, b"{}"))
            answer = put(**request)
            if request["Key"] == key:
                self._one_look(before, json.loads(request["Body"]))
            return answer

        self.world.s3_put_object = checked  # type: ignore[method-assign, assignment]

    def _one_look(self, before: Document, after: Document) -> None:
        if len(after["looks"]) == len(before.get("looks", ())):
            return
        taken, keys = after["looks"][-1], set(before["open"]["keys"])
        if taken["look"]["photos"] != PHOTOS_A_FILE * len(keys):
            self._break(f"look {taken['look']['number']} counts the photos of another one")
        if taken["verdict"] == "too few":
            return
        if twice := sorted(keys & self.counted):
            self._break(f"look {taken['look']['number']} counts {twice} twice")
        self.counted |= keys

    def _create_endpoint(self, request: Document) -> None:
        self._holds_lock(f"CreateEndpoint {request['EndpointConfigName']}")

    def _update_endpoint(self, request: Document) -> None:
        self._holds_lock(f"UpdateEndpoint {request['EndpointConfigName']}")

    def _holds_lock(self, what: str) -> None:
        run, _ = self.scheduler.at_work[-1]
        held = self.world.objects.get(f"locks/{ENDPOINT}.json", b"").decode()
        if run.run_id not in held:
            self._break(f"{what} by {run.run_id} while the lock is {held or 'free'}")

    def at_the_end(self) -> None:
        last = self.scheduler.runs[-1]
        # Where not even the teardown found space, the last run is the first that can end the work.
        over_at = {
            run.run_id: last.over_at if run.tasks[-1].state == "failed" else run.over_at
            for run in self.scheduler.runs
        }
        for job in self.world.jobs.values():
            run_id = next(tag["Value"] for tag in job.tags if tag["Key"] == "run_id")
            if job.stopped is None and job.ends > over_at[run_id] + _LATE_SECONDS:
                self._break(f"{job.name} is left running")
        for machine in self.world.machines.values():
            if machine.ended is None:
                self._break(f"{machine.instance_id} is left running")
        endpoint = self.world.endpoints.get(ENDPOINT)
        if endpoint and not endpoint.failed and endpoint.serving not in self.world.served:
            self._break(f"the endpoint ends on {endpoint.serving}, which never served")
        for run in self.scheduler.runs:
            deploy = next((task for task in run.tasks if task.task_id == "deploy"), None)
            if deploy and deploy.state == "success":
                config = deploy.xcoms["return_value"]["endpoint_config_name"]
                if config not in self.world.served:
                    self._break(f"{run.run_id} reported {config} in service, which never served")

    def _break(self, line: str) -> None:
        self.world.note(f"BROKEN {line}")
        self.broken.append(line)
