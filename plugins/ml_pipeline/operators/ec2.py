"""The EC2 branch: a machine for one training job, the job through Run Command, and the end of the machine."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple
from datetime import timedelta
from typing import Any

from airflow.sdk.exceptions import TaskDeferralTimeout, TaskDeferred

from ml_pipeline.aws import code_archive, instances, log_tail
from ml_pipeline.aws import s3 as objects
from ml_pipeline.dataset import version as dataset
from ml_pipeline.errors import JobFailed, JobInterrupted
from ml_pipeline.operators.aws import AwsOperator, origin_of
from ml_pipeline.requests import instance, names
from ml_pipeline.requests.instance import Instance
from ml_pipeline.requests.job import DEFAULT_HOURS, Channel, DataType, seconds
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.settings import Settings
from ml_pipeline.triggers.command import CommandTrigger
from ml_pipeline.triggers.instance import InstanceTrigger
from ml_pipeline.triggers.ownership import is_over
from model_code import hyperparameters

# What a machine lives beyond its longest job: the start, the upload, and whoever has to notice the end.
_SPARE = timedelta(hours=1)
# XCom under which the training's name waits for its end.
_NAME = "training_name"


class _Ec2Operator(AwsOperator):
    """What the operators of the machine and of its job share.

    :param max_job_hours: the job is killed after this, the machine ends itself an hour later.
    """

    template_fields: tuple[str, ...] = ("max_job_hours",)

    def __init__(self, *, max_job_hours: Any = DEFAULT_HOURS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_job_hours = max_job_hours

    def longest_run(self) -> timedelta:
        """How long the job may run."""
        return timedelta(seconds=seconds(min(float(self.max_job_hours), instance.LONGEST_HOURS)))


class CreateInstanceOperator(_Ec2Operator):
    """Start one machine, or find the one an earlier try started, and wait deferred until SSM reaches it.

    Returns `{"instance_id", "instance_type"}`.

    :param instance_type: "m5.xlarge"; a leading "ml." is dropped.
    :param wait_timeout: longest wait for a machine.
    """

    template_fields = (*_Ec2Operator.template_fields, "instance_type")

    def __init__(
        self, *, instance_type: Any, wait_timeout: timedelta = timedelta(hours=4), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.instance_type = instance_type
        self.wait_timeout = wait_timeout
        self._instance_id: str | None = None
        self._task_instance: Any = None

    def execute(self, context: Any) -> dict[str, Any]:
        """Start or adopt, then wait."""
        settings, origin = Settings.load(), origin_of(context)
        self._task_instance = context["ti"]
        ec2 = self.client("ec2")
        if settings.local:
            instances.ensure_local_profile(self.client("iam"), settings.instance_profile)
        template = Instance(
            name=names.PLACEHOLDER,
            image_id=instances.image_id(settings, self.client("ssm")),
            instance_type=self.instance_type.removeprefix("ml."),
            profile=settings.instance_profile,
            security_group_id=instances.security_group(settings, ec2),
            subnet_id=settings.subnet_id,
            lifetime_minutes=math.ceil((self.longest_run() + _SPARE) / timedelta(minutes=1)),
        )
        # The image moves under its public parameter: hashed in, a retry would start a second machine.
        identity = {"instance_type": template.instance_type, "lifetime_minutes": template.lifetime_minutes}
        instance_id, created = instances.run_or_adopt(
            ec2,
            template,
            lambda attempt: names.job_name("ec2", origin, identity, attempt),
            names.tags(origin),
        )
        self._instance_id = instance_id
        self.log.info("%s instance %s", "started" if created else "adopted", instance_id)
        context["ti"].xcom_push(key="instance_id", value=instance_id)
        trigger = InstanceTrigger(instance_id, settings.poll_seconds, self.access.to_dict())
        raise TaskDeferred(trigger=trigger, method_name="complete", timeout=self.wait_timeout)

    def complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """The machine is online, or gone."""
        if event["state"] != "online":
            raise JobInterrupted(f"instance {event['instance_id']} is {event['state']} before it came online")
        return {"instance_id": event["instance_id"], "instance_type": self.instance_type}

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Terminate the machine when the wait timed out: Airflow kills the trigger then without asking it."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            ti = context["ti"]
            instance_id = ti.xcom_pull(task_ids=self.task_id, key="instance_id", map_indexes=ti.map_index)
            if instance_id:
                self.client("ec2").terminate_instances(InstanceIds=[instance_id])
            raise JobFailed(f"instance {instance_id} was not online within {self.wait_timeout}") from None

    def on_kill(self) -> None:
        """Terminate the machine of a task that was killed before it deferred, unless the task will run again."""
        if self._instance_id is None:
            return
        ti = self._task_instance
        with suppress(Exception):
            states = ti.get_task_states(
                dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
            )
            if not is_over(states, ti.run_id):
                return
        self.client("ec2").terminate_instances(InstanceIds=[self._instance_id])


class Ec2TrainingOperator(_Ec2Operator):
    """Train on a machine as `TrainingOperator` does on SageMaker: same script, same hyperparameters, same layout
    of the result, so that the models are interchangeable.

    Returns `{"training_job_name", "model_uri", "metrics"}`; what the machine costs, the terminate task tells.

    :param machine: what the create task returned.
    :param dataset, weights, embeddings, tuning, recipe: as in `TrainingOperator`.
    """

    template_fields = (
        *_Ec2Operator.template_fields,
        "machine",
        "dataset",
        "weights",
        "embeddings",
        "tuning",
        "recipe",
    )

    def __init__(
        self,
        *,
        machine: Any,
        dataset: Any,
        weights: Any,
        embeddings: Any,
        tuning: Any,
        recipe: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.machine = machine
        self.dataset = dataset
        self.weights = weights
        self.embeddings = embeddings
        self.tuning = tuning
        self.recipe = recipe
        self._command_id: str | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        """Send the command, or find the one an earlier try sent, and wait deferred."""
        settings = Settings.load()
        s3, ssm = self.client("s3"), self.client("ssm")
        code_uri = settings.s3(code_archive.publish(s3, settings.bucket).key)
        version = dataset.load(s3, self.dataset["manifest_uri"])
        recipe = Recipe(**self.recipe)
        document = {
            "script": "train.py",
            "hyperparameters": recipe.of_final(self.tuning["best_hyperparameters"]),
            "channels": [
                channel_document(channel)
                for channel in dataset.training_channels(
                    version,
                    recipe.strategy,
                    self.embeddings["embeddings_uri"],
                    self.weights["uri"],
                    final=True,
                )
            ],
        }
        name = names.job_name("ec2-train", origin_of(context), {**document, "code": code_uri}, 1)
        job_uri = settings.s3(f"jobs/{name}/job.json")
        objects.write_json(s3, job_uri, {**document, "model_uri": model_uri(settings, name)})
        instance_id = self.machine["instance_id"]
        self._command_id = instances.running_command(ssm, instance_id, name)
        if self._command_id is None:
            request = instance.send_command(
                name,
                instance_id,
                code_uri,
                job_uri,
                settings.bucket,
                int(self.longest_run().total_seconds()),
                settings.region,
            )
            self._command_id = ssm.send_command(**request)["Command"]["CommandId"]
        self.log.info("command %s trains %s on %s", self._command_id, name, instance_id)
        trigger = CommandTrigger(self._command_id, instance_id, settings.poll_seconds, self.access.to_dict())
        context["ti"].xcom_push(key=_NAME, value=name)
        timeout = self.longest_run() + _SPARE
        raise TaskDeferred(trigger=trigger, method_name="complete", timeout=timeout)

    def complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """The command has ended: check its exit code and that the model is there."""
        settings = Settings.load()
        name = context["ti"].xcom_pull(task_ids=self.task_id, key=_NAME)
        if event["status"] != "Success":
            raise JobFailed(
                f"training {name} on {self.machine['instance_id']} is {event['status']} with exit code "
                f"{event['exit_code']}: {event['error']}"
            )
        uri = model_uri(settings, name)
        if not objects.exists(self.client("s3"), uri):
            raise JobFailed(f"training {name} succeeded but left no {uri}")
        prefix = f"{event['command_id']}/{self.machine['instance_id']}/"
        log = log_tail.last_lines(self.client("logs"), instance.LOG_GROUP, prefix)
        return {"training_job_name": name, "model_uri": uri, "metrics": metrics_in(log)}

    def on_kill(self) -> None:
        """Cancel the command; the machine itself is ended by the teardown."""
        if self._command_id:
            self.client("ssm").cancel_command(CommandId=self._command_id)


class TerminateInstanceOperator(AwsOperator):
    """End every machine of the run; found by tag, so that one is found whose create task died.

    Returns `{"machines": [{"instance_id", "instance_type", "seconds"}]}`; the seconds are those that are billed.
    """

    def execute(self, context: Any) -> dict[str, Any]:
        """Terminate; a machine that is gone already is no error."""
        run = context["dag_run"]
        ended = instances.terminate(self.client("ec2"), run.dag_id, run.run_id)
        for machine in ended:
            self.log.info("%s (%s) is terminated after %.0f s", *astuple(machine))
        return {"machines": [asdict(machine) for machine in ended]}


def model_uri(settings: Settings, name: str) -> str:
    """Where the model of job `name` lies: the layout of a SageMaker training job."""
    return settings.s3(f"jobs/{name}/output/model.tar.gz")


def channel_document(channel: Channel) -> dict[str, Any]:
    """A channel in job.json."""
    return {
        "name": channel.name,
        "uri": channel.uri,
        "manifest": channel.data_type is DataType.MANIFEST,
    }


def metrics_in(log: Sequence[str]) -> dict[str, float]:
    """The last value of each metric in a log's lines, by the same expressions as SageMaker's."""
    values: dict[str, float] = {}
    for definition in hyperparameters.metric_definitions():
        found = [match[1] for line in log if (match := re.search(definition["Regex"], line))]
        if found:
            values[definition["Name"]] = float(found[-1])
    return values
