"""One simulated schedule: two runs, one endpoint, faults, crashes and users; and what has to hold afterwards."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.operators.deploy import DeployEndpointOperator
from ml_pipeline.operators.ec2 import CreateInstanceOperator, TerminateInstanceOperator
from ml_pipeline.operators.job import Request, SageMakerJobOperator
from ml_pipeline.operators.leftovers import StopLeftoversOperator
from ml_pipeline.requests.types import Document, Tags
from ml_pipeline.settings import Settings
from tests.simulator.airflow import Run, Scheduler, Task
from tests.simulator.clock import Loop
from tests.simulator.world import World

ENDPOINT = "dogs"
# A kill insists on stopping its work for this long, even if the run is over by then.
_LATE_SECONDS = 1000.0


class Work(SageMakerJobOperator[dict[str, str]]):
    """The operator of every paid job, around a job without content."""

    kind = JobKind.PROCESSING
    slug = "work"

    def request(self, settings: Settings) -> Request:
        def build(name: str, tags: Tags) -> Document:
            return {"ProcessingJobName": name, "Tags": list(tags)}

        return build

    def result(self, settings: Settings, description: Document) -> dict[str, str]:
        return {"job": description["ProcessingJobName"]}


@dataclass
class Outcome:
    """The journal of a schedule, and the invariants that it broke."""

    journal: list[str]
    broken: list[str]


def simulate(seed: int, faults: float, patch: Any) -> Outcome:
    """Run the schedule of `seed`.

    Args:
        seed: Decides on everything.
        faults: Probability that a call fails or loses its answer.
        patch: pytest's monkeypatch.
    """
    world = World(seed, faults)
    scheduler = Scheduler(world)
    _install(patch, world, scheduler)
    for number in (1, 2):
        arn = f"arn:package/{number}"
        world.packages[arn] = _package(arn, number)
        scheduler.runs.append(_run(f"run-{number}", arn, on_ec2=world.random.random() < 0.4))
    watch = _Watch(world, scheduler)
    loop = Loop(world.clock)
    try:
        loop.run_until_complete(asyncio.wait_for(_all(scheduler), 40 * 86400))
        world.clock.now += 7200
        world.settle()
        watch.at_the_end()
    finally:
        loop.close()
    return Outcome(world.journal, watch.broken)


async def _all(scheduler: Scheduler) -> None:
    await asyncio.gather(*(scheduler.drive(run) for run in scheduler.runs))
    # A kill may still be at work: it insists through outages.
    await asyncio.sleep(2 * 3600)


def _run(run_id: str, arn: str, on_ec2: bool) -> Run:
    package = {"model_package_arn": arn}
    tasks = [Task("embed", lambda _: Work(task_id="embed"))]
    if on_ec2:
        tasks.append(
            Task("create", lambda _: CreateInstanceOperator(task_id="create", instance_type="m5.large"))
        )
    else:
        tasks.append(Task("train", lambda _: Work(task_id="train")))
    tasks.append(
        Task(
            "deploy",
            lambda _: DeployEndpointOperator(task_id="deploy", endpoint_name=ENDPOINT, package=package),
        )
    )
    tasks.append(Task("terminate", lambda _: TerminateInstanceOperator(task_id="terminate"), teardown=True))
    tasks.append(
        Task(
            "stop_leftovers",
            lambda _: StopLeftoversOperator(task_id="stop_leftovers", endpoint_name=ENDPOINT),
            teardown=True,
        )
    )
    return Run(run_id, tasks)


def _package(arn: str, number: int) -> dict[str, Any]:
    container = {"ModelDataUrl": f"s3://bucket/jobs/{number}/output/model.tar.gz", "Image": "image"}
    return {
        "ModelPackageArn": arn,
        "ModelApprovalStatus": "Approved",
        "InferenceSpecification": {"Containers": [container]},
        "CustomerMetadataProperties": {"dataset_name": "dogs", "dataset_version": str(number)},
    }


def _install(patch: Any, world: World, scheduler: Scheduler) -> None:
    from ml_pipeline.aws import jobs
    from ml_pipeline.aws.clients import AwsAccess
    from ml_pipeline.operators import deploy
    from ml_pipeline.triggers import base, lock
    from tests.simulator.world import AsyncClient, Client

    async def async_client(self: AwsAccess, service: str) -> AsyncClient:
        return AsyncClient(world, service)

    def in_line(function: Any) -> Any:
        async def call() -> Any:
            return function()

        return call

    patch.setattr(AwsAccess, "client", lambda self, service: Client(world, service))
    patch.setattr(AwsAccess, "async_client", async_client)
    patch.setattr(base, "task_is_over", scheduler.task_is_over)
    patch.setattr(lock, "sync_to_async", in_line)
    patch.setattr(lock, "run_is_over", lambda _, run_id: scheduler.is_over(run_id))
    patch.setattr(deploy, "run_is_over", lambda _, run_id: scheduler.is_over(run_id))
    patch.setattr(jobs.time, "sleep", world.clock.sleep)


class _Watch:
    """Checks the invariants, some of them at each call."""

    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self.world, self.scheduler, self.broken = world, scheduler, list[str]()
        for name in ("create_processing_job", "create_endpoint", "update_endpoint"):
            self._wrap(f"sagemaker_{name}", getattr(self, f"_{name}"))

    def _wrap(self, name: str, check: Any) -> None:
        original = getattr(self.world, name)

        def call(**request: Any) -> Any:
            answer = original(**request)
            check(request)
            return answer

        setattr(self.world, name, call)

    def _create_processing_job(self, request: Document) -> None:
        name = request["ProcessingJobName"]
        piece = re.sub(r"-\d+$", "", name)
        for job in self.world.jobs.values():
            if job.name == name or not job.name.startswith(piece):
                continue
            status = job.status(self.world.now)
            if status in ("InProgress", "Completed"):
                self._break(f"{name} was created although {job.name} is {status}")

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
        over_at = {run.run_id: run.over_at for run in self.scheduler.runs}
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
            deploy = run.task("deploy")
            if deploy.state == "success":
                config = deploy.xcoms["return_value"]["endpoint_config_name"]
                if config not in self.world.served:
                    self._break(f"{run.run_id} reported {config} in service, which never served")

    def _break(self, line: str) -> None:
        self.world.note(f"BROKEN {line}")
        self.broken.append(line)
