"""A model of paid work: SageMaker's four kinds of jobs, instances of EC2, and Run Commands of SSM."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ml_pipeline.aws.jobs import JobKind
from tests.simulator.errors import MISSING, START, refuse

_LISTED = {
    JobKind.PROCESSING: "ProcessingJobSummaries",
    JobKind.TRAINING: "TrainingJobSummaries",
    JobKind.TRANSFORM: "TransformJobSummaries",
    JobKind.TUNING: "HyperParameterTuningJobSummaries",
}
_BY_METHOD = {
    **{kind.calls.create: (kind, "create") for kind in JobKind},
    **{kind.calls.describe: (kind, "describe") for kind in JobKind},
    **{kind.calls.stop: (kind, "stop") for kind in JobKind},
    **{f"{kind.calls.create.replace('create', 'list')}s": (kind, "list") for kind in JobKind},
}


@dataclass
class Job:
    """A paid job: it ends by itself at `ends` with `outcome`.

    Attributes:
        request: Its Create request.
        read: The manifest of captures that it read when it started.
    """

    kind: JobKind
    name: str
    tags: list[dict[str, str]]
    created: float
    ends: float
    outcome: tuple[str, str]
    request: dict[str, Any] = field(default_factory=dict)
    read: tuple[str, ...] = ()
    stopped: float | None = None

    def status(self, now: float) -> str:
        if self.stopped is not None and now >= self.stopped:
            return "Stopping" if now < self.stopped + 20 else "Stopped"
        return "InProgress" if now < self.ends else self.outcome[0]


@dataclass
class Machine:
    """An EC2 instance; its hardware may die at `dies`."""

    instance_id: str
    token: str
    tags: dict[str, str]
    launched: float
    dies: float = float("inf")
    ended: float | None = None


@dataclass
class Command:
    """A Run Command: it ends at `ends`, earlier if it is cancelled; at its limit where its machine is gone."""

    command_id: str
    instance_id: str
    comment: str
    sent: float
    ends: float
    limit: float
    outcome: str
    cancelled: float | None = None


class PaidWork:
    """Answers about jobs, instances and commands."""

    jobs: dict[str, Job]
    machines: dict[str, Machine]
    commands: dict[str, Command]
    objects: dict[str, bytes]
    now: float
    random: random.Random

    def note(self, line: str) -> None: ...

    # ------------------------------------------------------------------------------------------- jobs

    def job_call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Answer a call about jobs of any kind."""
        kind, verb = _BY_METHOD[method]
        if verb == "create":
            return self.create_job(kind, arguments)
        if verb == "list":
            rows = [job for job in self.jobs.values() if job.kind is kind and self._runs(job)]
            keys = kind.calls
            return {_LISTED[kind]: [{keys.name: job.name, keys.arn: job.name} for job in rows]}
        name = arguments[kind.calls.name]
        if name not in self.jobs:
            raise refuse(*MISSING)
        job = self.jobs[name]
        if verb == "describe":
            return self._described_job(job)
        if not self._runs(job):
            raise refuse("ValidationException", "The request was rejected: the job is not in progress.")
        job.stopped = self.now
        self.note(f"stopping {job.name}")
        return {}

    def _runs(self, job: Job) -> bool:
        return job.status(self.now) == "InProgress"

    def create_job(self, kind: JobKind, request: dict[str, Any]) -> dict[str, Any]:
        name = request[kind.calls.name]
        if name in self.jobs:
            raise refuse("ResourceInUse", "Job names must be unique")
        outcome = self.random.choices(
            [("Completed", ""), ("Failed", "AlgorithmError: bad"), ("Failed", "CapacityError: none")],
            [18, 1, 1],
        )[0]
        ends = self.now + self.random.choices([5.0, 300.0, 4000.0, 200_000.0], [4, 4, 4, 1])[0]
        job = Job(kind, name, list(request["Tags"]), self.now, ends, outcome, request)
        for channel in request.get("ProcessingInputs", ()):
            if channel["InputName"] == "captures":
                uri = channel["S3Input"]["S3Uri"]
                job.read = tuple(json.loads(self.objects[uri.removeprefix("s3://bucket/")])[1:])
        self.jobs[name] = job
        self.note(f"created {name}")
        return {}

    def _described_job(self, job: Job) -> dict[str, Any]:
        status, keys = job.status(self.now), job.kind.calls
        answer: dict[str, Any] = {keys.name: job.name, keys.status: status}
        if status == "Failed":
            answer["FailureReason"] = job.outcome[1]
        if job.kind is JobKind.TRAINING:
            answer["ModelArtifacts"] = {
                "S3ModelArtifacts": f"s3://bucket/jobs/{job.name}/output/model.tar.gz"
            }
        if job.kind is JobKind.TRANSFORM:
            answer |= {key: job.request[key] for key in ("TransformOutput", "ModelName")}
        if job.kind is JobKind.TUNING:
            answer["HyperParameterTuningJobConfig"] = job.request["HyperParameterTuningJobConfig"]
            if status == "Completed":
                answer["BestTrainingJob"] = _trial(job, 1)
        return answer

    def sagemaker_list_training_jobs_for_hyper_parameter_tuning_job(
        self,
        HyperParameterTuningJobName: str,  # noqa: N803
    ) -> dict[str, Any]:
        job = self.jobs[HyperParameterTuningJobName]
        return {"TrainingJobSummaries": [_trial(job, 1), _trial(job, 2)]}

    def logs_describe_log_streams(self, **_: Any) -> dict[str, Any]:
        return {"logStreams": []}

    # ---------------------------------------------------------------------------------------- machines

    def ec2_describe_security_groups(self, **_: Any) -> dict[str, Any]:
        return {"SecurityGroups": [{"GroupId": "sg-1"}]}

    def ec2_run_instances(self, **request: Any) -> dict[str, Any]:
        token = request["ClientToken"]
        machine = next((m for m in self.machines.values() if m.token == token), None)
        if machine is None:
            tags = {tag["Key"]: tag["Value"] for tag in request["TagSpecifications"][0]["Tags"]}
            dies = self.now + self.random.choice([*[float("inf")] * 15, 20.0, 3000.0])
            machine = Machine(f"i-{len(self.machines)}", token, tags, self.now, dies)
            self.machines[machine.instance_id] = machine
            self.note(f"launched {machine.instance_id} for {token}")
        return {"Instances": [{"InstanceId": machine.instance_id}]}

    def _described(self, machine: Machine) -> dict[str, Any]:
        state = "pending" if self.now < machine.launched + 30 else "running"
        return {
            "InstanceId": machine.instance_id,
            "InstanceType": "m5.large",
            "State": {"Name": "terminated" if machine.ended is not None else state},
            "Tags": [{"Key": key, "Value": value} for key, value in machine.tags.items()],
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

    # ---------------------------------------------------------------------------------------- commands

    def settle_machines(self) -> None:
        """End the machines that die, and leave the model of every training on one that has succeeded."""
        for machine in self.machines.values():
            if machine.ended is None and self.now >= machine.dies:
                machine.ended = machine.dies
                self.note(f"{machine.instance_id} died")
        for command in self.commands.values():
            key = f"jobs/{command.comment}/output/model.tar.gz"
            if key not in self.objects and self._command_status(command) == "Success":
                self.objects[key] = b"model"

    def _command_status(self, command: Command) -> str:
        if command.cancelled is not None and command.cancelled < command.ends:
            return "Cancelled"
        ended = self.machines[command.instance_id].ended
        if ended is not None and ended < command.ends:
            return "TimedOut" if self.now >= command.limit else "InProgress"
        return command.outcome if self.now >= command.ends else "InProgress"

    def ssm_send_command(self, **request: Any) -> dict[str, Any]:
        (instance_id,), name = request["InstanceIds"], request["Comment"]
        machine = self.machines[instance_id]
        if machine.ended is not None:
            raise refuse("InvalidInstanceId", "Instances not in a valid state for account")
        assert f"jobs/{name}/job.json" in self.objects
        ends = self.now + self.random.choice([60.0, 4000.0, 40_000.0])
        outcome = self.random.choices(["Success", "Failed"], [15, 1])[0]
        # One of the same name holds the lock of the script; a second one waits for it, and finds its work done.
        for other in self.commands.values():
            if other.comment == name and self._command_status(other) in ("Success", "InProgress"):
                ends, outcome = max(self.now + 1, other.ends + 1), other.outcome
        limit = self.now + float(request["Parameters"]["executionTimeout"][0])
        found = Command(f"c-{len(self.commands)}", instance_id, name, self.now, ends, limit, outcome)
        self.commands[found.command_id] = found
        self.note(f"sent {found.command_id} for {name} to {instance_id}")
        return {"Command": {"CommandId": found.command_id}}

    def ssm_list_commands(self, InstanceId: str) -> dict[str, Any]:  # noqa: N803
        rows = [
            {
                "CommandId": command.command_id,
                "Comment": command.comment,
                "Status": self._command_status(command),
            }
            for command in self.commands.values()
            if command.instance_id == InstanceId
        ]
        return {"Commands": rows}

    def ssm_get_command_invocation(self, CommandId: str, InstanceId: str) -> dict[str, Any]:  # noqa: N803
        command = self.commands[CommandId]
        if self.now < command.sent + 2:
            raise refuse("InvocationDoesNotExist", "")
        status = self._command_status(command)
        return {"Status": status, "ResponseCode": 0 if status == "Success" else 1}

    def ssm_cancel_command(self, CommandId: str) -> dict[str, Any]:  # noqa: N803
        command = self.commands[CommandId]
        if self._command_status(command) == "InProgress":
            command.cancelled = self.now
            self.note(f"cancelled {CommandId}")
        return {}


def _trial(job: Job, number: int) -> dict[str, Any]:
    """Return the summary of a trial of a search."""
    start = START + timedelta(seconds=job.created)
    return {
        "TrainingJobName": f"{job.name}-{number:03d}",
        "TrainingJobStatus": "Completed",
        "TunedHyperParameters": {},
        "TrainingStartTime": start,
        "TrainingEndTime": start + timedelta(seconds=60),
        "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "valid_accuracy", "Value": 0.9},
    }
