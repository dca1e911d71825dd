"""A model of SageMaker, EC2, SSM, S3 and SQS, with faults: throttles, resets, expired credentials, lost answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ConnectionClosedError

from tests.simulator.clock import Clock
from tests.simulator.errors import FAULTS, MISSING, refuse
from tests.simulator.storage import Message, Storage
from tests.simulator.work import Command, Job, Machine, PaidWork

Hook = Callable[[str], None]


@dataclass
class Endpoint:
    """An endpoint: `serving` is live, `pending` is being rolled out until `until`."""

    serving: str | None
    pending: str | None
    until: float
    good: bool
    failed: bool = False


@dataclass
class World(PaidWork, Storage):
    """All state of AWS, and the chance of faults.

    Attributes:
        faults: Probability that a call is answered with an error, or loses its answer.
        full_disk: Probability that the workers' disk is full for a time.
        hook: Called at each call, to crash the caller or to let others run first.
        disk_full: (from, to) in seconds: no worker can begin a try meanwhile.
    """

    seed: int
    faults: float = 0.1
    full_disk: float = 0.15
    clock: Clock = field(default_factory=Clock)
    jobs: dict[str, Job] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    configs: dict[str, str] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    served: set[str] = field(default_factory=set)
    machines: dict[str, Machine] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    queue: list[Message] = field(default_factory=list)
    packages: dict[str, dict[str, Any]] = field(default_factory=dict)
    journal: list[str] = field(default_factory=list)
    hook: Hook = lambda call: None
    disk_full: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        if self.random.random() < self.full_disk:
            start = self.random.choice([0.0, 300.0, 5000.0])
            self.disk_full = (start, start + self.random.choice([60.0, 1500.0, 20_000.0]))

    @property
    def now(self) -> float:  # type: ignore[override]
        return self.clock.now

    def note(self, line: str) -> None:
        self.journal.append(f"{self.now:8.1f} {line}")

    def call(self, service: str, method: str, arguments: dict[str, Any]) -> Any:
        """Answer one API call, or fail before or after its effect."""
        self.hook(f"{service}.{method}")
        self.clock.now += self.random.uniform(0.0, 0.2)
        chance = self.random.random()
        if chance < self.faults / 2:
            code, message = self.random.choice(FAULTS)
            self.note(f"fault {method}: {code}")
            raise refuse(code, message)
        self.settle()
        handler = getattr(self, f"{service}_{method}", None)
        answer = handler(**arguments) if handler else self.job_call(method, arguments)
        if chance < self.faults:
            self.note(f"lost answer to {method}")
            raise ConnectionClosedError(endpoint_url=service)
        self.hook(f"after {service}.{method}")
        return answer

    def sagemaker_list_tags(self, ResourceArn: str) -> dict[str, Any]:  # noqa: N803
        if ResourceArn in self.jobs:
            return {"Tags": self.jobs[ResourceArn].tags}
        dataset = {"Key": "dataset", "Value": "dogs"}
        return {"Tags": [dataset]}

    def settle(self) -> None:
        """End the rollouts, the commands and the machines whose time has come."""
        self.settle_machines()
        for name, endpoint in self.endpoints.items():
            if endpoint.pending is None or self.now < endpoint.until:
                continue
            if endpoint.good:
                endpoint.serving = endpoint.pending
                self.served.add(endpoint.pending)
                self.note(f"{name} serves {endpoint.pending}")
            elif endpoint.serving is None:
                endpoint.failed = True
            endpoint.pending = None

    def sagemaker_describe_model_package(self, ModelPackageName: str) -> dict[str, Any]:  # noqa: N803
        return self.packages[ModelPackageName]

    def sagemaker_list_model_packages(self, **request: Any) -> dict[str, Any]:
        wanted = request.get("ModelApprovalStatus")
        rows = [
            {"ModelPackageArn": arn}
            for arn, package in reversed(self.packages.items())
            if wanted in (None, package["ModelApprovalStatus"])
        ]
        return {"ModelPackageSummaryList": rows[: request["MaxResults"]]}

    def sagemaker_update_model_package(self, **request: Any) -> dict[str, Any]:
        package = self.packages[request["ModelPackageArn"]]
        for key in ("ModelApprovalStatus", "ApprovalDescription"):
            if key in request:
                package[key] = request[key]
        package["CustomerMetadataProperties"] |= request.get("CustomerMetadataProperties", {})
        return {}

    def sagemaker_describe_model(self, ModelName: str) -> dict[str, Any]:  # noqa: N803
        if ModelName not in self.models:
            raise refuse(*MISSING)
        return {"ModelName": ModelName}

    def sagemaker_create_model(self, **request: Any) -> dict[str, Any]:
        if request["ModelName"] in self.models:
            raise refuse("ValidationException", "Cannot create already existing model")
        self.models.add(request["ModelName"])
        return {}

    def sagemaker_delete_model(self, ModelName: str) -> dict[str, Any]:  # noqa: N803
        self.models.discard(ModelName)
        return {}

    def sagemaker_describe_endpoint_config(self, EndpointConfigName: str) -> dict[str, Any]:  # noqa: N803
        if EndpointConfigName not in self.configs:
            raise refuse(*MISSING)
        variant = {"ModelName": self.configs[EndpointConfigName]}
        return {"EndpointConfigArn": EndpointConfigName, "ProductionVariants": [variant]}

    def sagemaker_create_endpoint_config(self, **request: Any) -> dict[str, Any]:
        if request["EndpointConfigName"] in self.configs:
            raise refuse("ValidationException", "Cannot create already existing endpoint configuration")
        self.configs[request["EndpointConfigName"]] = request["ProductionVariants"][0]["ModelName"]
        return {}

    def sagemaker_delete_endpoint_config(self, EndpointConfigName: str) -> dict[str, Any]:  # noqa: N803
        self.configs.pop(EndpointConfigName, None)
        return {}

    def sagemaker_describe_endpoint(self, EndpointName: str) -> dict[str, Any]:  # noqa: N803
        endpoint = self.endpoints.get(EndpointName)
        if endpoint is None:
            raise refuse(*MISSING)
        config = endpoint.serving or endpoint.pending
        answer: dict[str, Any] = {"EndpointName": EndpointName, "EndpointConfigName": config}
        if endpoint.failed:
            answer |= {"EndpointStatus": "Failed", "EndpointConfigName": "none"}
        elif endpoint.pending:
            answer["EndpointStatus"] = "Updating" if endpoint.serving else "Creating"
            answer["PendingDeploymentSummary"] = {"EndpointConfigName": endpoint.pending}
        else:
            answer["EndpointStatus"] = "InService"
            answer["ProductionVariants"] = [{"DesiredInstanceCount": 1}]
        return answer

    def _roll_out(self, config: str) -> tuple[float, bool]:
        if config not in self.configs:
            raise refuse(*MISSING)
        return self.now + self.random.choice([10.0, 900.0]), self.random.random() < 0.8

    def sagemaker_create_endpoint(self, **request: Any) -> dict[str, Any]:
        name, config = request["EndpointName"], request["EndpointConfigName"]
        if name in self.endpoints:
            raise refuse("ValidationException", "Cannot create already existing endpoint")
        until, good = self._roll_out(config)
        self.endpoints[name] = Endpoint(None, config, until, good)
        self.note(f"creating {name} with {config}")
        return {}

    def sagemaker_update_endpoint(self, **request: Any) -> dict[str, Any]:
        endpoint, config = self.endpoints[request["EndpointName"]], request["EndpointConfigName"]
        if endpoint.pending:
            raise refuse("ValidationException", "Cannot update in-progress endpoint")
        if endpoint.failed:
            raise refuse("ValidationException", "Cannot update a failed endpoint")
        endpoint.until, endpoint.good = self._roll_out(config)
        endpoint.pending = config
        self.note(f"updating {request['EndpointName']} to {config}")
        return {}

    def sagemaker_delete_endpoint(self, EndpointName: str) -> dict[str, Any]:  # noqa: N803
        if self.endpoints.pop(EndpointName, None) is None:
            raise refuse(*MISSING)
        return {}

    def cloudwatch_put_metric_alarm(self, **_: Any) -> dict[str, Any]:
        return {}

    def cloudwatch_describe_alarms(self, **_: Any) -> dict[str, Any]:
        return {"MetricAlarms": []}

    def autoscaling_describe_scalable_targets(self, **_: Any) -> dict[str, Any]:
        return {"ScalableTargets": []}


class Client:
    """A boto3 client of the world."""

    def __init__(self, world: World, service: str) -> None:
        self.world = world
        self._service = {"application-autoscaling": "autoscaling"}.get(service, service)

    def __getattr__(self, method: str) -> Any:
        return lambda **arguments: self.world.call(self._service, method, arguments)

    def get_paginator(self, method: str) -> Any:
        client = self

        class Paginator:
            def paginate(self, **arguments: Any) -> list[Any]:
                return [getattr(client, method)(**arguments)]

        return Paginator()


class AsyncClient:
    """An aiobotocore client of the world."""

    def __init__(self, world: World, service: str) -> None:
        self._client = Client(world, service)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    def __getattr__(self, method: str) -> Any:
        async def call(**arguments: Any) -> Any:
            answer = getattr(self._client, method)(**arguments)
            if not answer.get("Messages", True):
                # As many empty answers as come until there is something to read.
                hidden = [message.visible for message in self._client.world.queue if not message.deleted]
                until = min(hidden, default=0.0) - self._client.world.now
                await asyncio.sleep(max(arguments["WaitTimeSeconds"], min(until, 300.0)))
            return answer

        return call
