"""A model of SageMaker, EC2, SSM and S3, with faults: throttles, resets, expired credentials, lost answers."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError, ConnectionClosedError

from ml_pipeline.aws.jobs import JobKind
from tests.simulator.clock import Clock

START = datetime(2026, 11, 22, tzinfo=UTC)
MISSING = ("ValidationException", "Could not find it: it does not exist")
FAULTS = (
    ("ThrottlingException", "Rate exceeded"),
    ("ExpiredTokenException", "The security token included in the request is expired"),
    ("RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
    ("InternalFailure", "We encountered an internal error."),
)
# Calls that a second one of the same kind must not repeat, and the key of their names.
Hook = Callable[[str], None]


def refuse(code: str, message: str, status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Any"
    )


@dataclass
class Job:
    """A paid job: it ends by itself at `ends` with `outcome`."""

    kind: JobKind
    name: str
    tags: list[dict[str, str]]
    created: float
    ends: float
    outcome: tuple[str, str]
    stopped: float | None = None

    def status(self, now: float) -> str:
        if self.stopped is not None and now >= self.stopped:
            return "Stopping" if now < self.stopped + 20 else "Stopped"
        return "InProgress" if now < self.ends else self.outcome[0]


@dataclass
class Endpoint:
    """An endpoint: `serving` is live, `pending` is being rolled out until `until`."""

    serving: str | None
    pending: str | None
    until: float
    good: bool
    failed: bool = False


@dataclass
class Machine:
    """An EC2 instance."""

    instance_id: str
    token: str
    tags: dict[str, str]
    launched: float
    ended: float | None = None


@dataclass
class World:
    """All state of AWS, and the chance of faults.

    Attributes:
        faults: Probability that a call is answered with an error, or loses its answer.
        hook: Called at each call, to crash the caller or to let others run first.
    """

    seed: int
    faults: float = 0.1
    clock: Clock = field(default_factory=Clock)
    jobs: dict[str, Job] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    configs: dict[str, str] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    served: set[str] = field(default_factory=set)
    machines: dict[str, Machine] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    packages: dict[str, dict[str, Any]] = field(default_factory=dict)
    journal: list[str] = field(default_factory=list)
    hook: Hook = lambda call: None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    @property
    def now(self) -> float:
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
        answer = getattr(self, f"{service}_{method}")(**arguments)
        if chance < self.faults:
            self.note(f"lost answer to {method}")
            raise ConnectionClosedError(endpoint_url=service)
        self.hook(f"after {service}.{method}")
        return answer

    # ------------------------------------------------------------------------------------------- jobs

    def _job(self, name: str) -> Job:
        if name not in self.jobs:
            raise refuse(*MISSING)
        return self.jobs[name]

    def _create(self, kind: JobKind, request: dict[str, Any]) -> dict[str, Any]:
        name = request[kind.calls.name]
        if name in self.jobs:
            raise refuse("ResourceInUse", "Job names must be unique")
        outcome = self.random.choices(
            [("Completed", ""), ("Failed", "AlgorithmError: bad"), ("Failed", "CapacityError: none")],
            [8, 1, 1],
        )[0]
        ends = self.now + self.random.choice([5.0, 300.0, 4000.0, 200_000.0])
        self.jobs[name] = Job(kind, name, list(request["Tags"]), self.now, ends, outcome)
        self.note(f"created {name}")
        return {}

    def sagemaker_create_processing_job(self, **request: Any) -> dict[str, Any]:
        return self._create(JobKind.PROCESSING, request)

    def sagemaker_describe_processing_job(self, ProcessingJobName: str) -> dict[str, Any]:  # noqa: N803
        job = self._job(ProcessingJobName)
        return {
            "ProcessingJobName": job.name,
            "ProcessingJobStatus": job.status(self.now),
            "FailureReason": job.outcome[1] if job.status(self.now) == "Failed" else "",
        }

    def sagemaker_stop_processing_job(self, ProcessingJobName: str) -> dict[str, Any]:  # noqa: N803
        job = self._job(ProcessingJobName)
        if job.status(self.now) != "InProgress":
            raise refuse("ValidationException", "The request was rejected: the job is not in progress.")
        job.stopped = self.now
        self.note(f"stopping {job.name}")
        return {}

    def sagemaker_list_processing_jobs(self, **_: Any) -> dict[str, Any]:
        running = [job for job in self.jobs.values() if job.status(self.now) == "InProgress"]
        rows = [{"ProcessingJobName": job.name, "ProcessingJobArn": job.name} for job in running]
        return {"ProcessingJobSummaries": rows}

    def sagemaker_list_training_jobs(self, **_: Any) -> dict[str, Any]:
        return {"TrainingJobSummaries": []}

    def sagemaker_list_transform_jobs(self, **_: Any) -> dict[str, Any]:
        return {"TransformJobSummaries": []}

    def sagemaker_list_hyper_parameter_tuning_jobs(self, **_: Any) -> dict[str, Any]:
        return {"HyperParameterTuningJobSummaries": []}

    def sagemaker_list_tags(self, ResourceArn: str) -> dict[str, Any]:  # noqa: N803
        if ResourceArn in self.jobs:
            return {"Tags": self.jobs[ResourceArn].tags}
        dataset = {"Key": "dataset", "Value": "dogs"}
        return {"Tags": [dataset]}

    def logs_describe_log_streams(self, **_: Any) -> dict[str, Any]:
        return {"logStreams": []}

    # -------------------------------------------------------------------------------------- endpoints

    def settle(self) -> None:
        """End the rollouts whose time has come."""
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

    # ---------------------------------------------------------------------------------------- machines

    def ec2_describe_security_groups(self, **_: Any) -> dict[str, Any]:
        return {"SecurityGroups": [{"GroupId": "sg-1"}]}

    def ec2_run_instances(self, **request: Any) -> dict[str, Any]:
        token = request["ClientToken"]
        machine = next((m for m in self.machines.values() if m.token == token), None)
        if machine is None:
            tags = {tag["Key"]: tag["Value"] for tag in request["TagSpecifications"][0]["Tags"]}
            machine = Machine(f"i-{len(self.machines)}", token, tags, self.now)
            self.machines[machine.instance_id] = machine
            self.note(f"launched {machine.instance_id} for {token}")
        return {"Instances": [{"InstanceId": machine.instance_id}]}

    def _described(self, machine: Machine) -> dict[str, Any]:
        state = "pending" if self.now < machine.launched + 30 else "running"
        return {
            "InstanceId": machine.instance_id,
            "InstanceType": "m5.large",
            "State": {"Name": "terminated" if machine.ended is not None else state},
            "LaunchTime": START + timedelta(seconds=machine.launched),
        }

    def ec2_describe_instances(self, **request: Any) -> dict[str, Any]:
        wanted = {entry["Name"].removeprefix("tag:"): entry["Values"] for entry in request.get("Filters", [])}
        ids = request.get("InstanceIds")
        found = [
            self._described(machine)
            for machine in self.machines.values()
            if (ids is None or machine.instance_id in ids)
            and all(machine.tags.get(key) in values for key, values in wanted.items())
        ]
        return {"Reservations": [{"Instances": found}]}

    def ec2_terminate_instances(self, InstanceIds: list[str]) -> dict[str, Any]:  # noqa: N803
        for name in InstanceIds:
            if self.machines[name].ended is None:
                self.machines[name].ended = self.now
                self.note(f"terminated {name}")
        return {}

    def ssm_describe_instance_information(self, Filters: Any) -> dict[str, Any]:  # noqa: N803
        machine = self.machines[Filters[0]["Values"][0]]
        online = machine.ended is None and self.now > machine.launched + 60
        return {"InstanceInformationList": [{"PingStatus": "Online"}] if online else []}

    # ---------------------------------------------------------------------------------------------- S3

    def s3_get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        if Key not in self.objects:
            raise refuse("NoSuchKey", "none", 404)
        return {"Body": io.BytesIO(self.objects[Key]), "ETag": _etag(self.objects[Key])}

    def s3_put_object(self, Bucket: str, Key: str, Body: bytes, **condition: str) -> dict[str, Any]:  # noqa: N803
        held = self.objects.get(Key)
        if "IfNoneMatch" in condition and held is not None:
            raise refuse("PreconditionFailed", "it exists", 412)
        if "IfMatch" in condition and (held is None or _etag(held) != condition["IfMatch"]):
            raise refuse("PreconditionFailed", "it changed", 412)
        self.objects[Key] = Body
        return {}

    def s3_delete_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        self.objects.pop(Key, None)
        return {}


def _etag(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


class Client:
    """A boto3 client of the world."""

    def __init__(self, world: World, service: str) -> None:
        self._world = world
        self._service = {"application-autoscaling": "autoscaling"}.get(service, service)

    def __getattr__(self, method: str) -> Any:
        return lambda **arguments: self._world.call(self._service, method, arguments)

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
            return getattr(self._client, method)(**arguments)

        return call
