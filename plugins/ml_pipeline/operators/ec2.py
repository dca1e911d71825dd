"""The EC2 branch: start an instance for one training job, run the job by Run Command, terminate the instance."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple
from datetime import timedelta
from typing import TYPE_CHECKING, Unpack

from airflow.sdk.exceptions import TaskDeferralTimeout

from ml_pipeline.aws import code_archive, instances, log_tail
from ml_pipeline.aws import s3 as objects
from ml_pipeline.dataset import version as dataset
from ml_pipeline.errors import JobFailed, JobInterrupted, WaitFailed
from ml_pipeline.operators.aws import AwsOperator, AwsOptions, origin_of
from ml_pipeline.requests import instance, names
from ml_pipeline.requests.disks import disk_gb
from ml_pipeline.requests.instance import Instance
from ml_pipeline.requests.job import DEFAULT_HOURS, Channel, DataType, seconds
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.types import Document, Machine, Templated, Terminated, Trained
from ml_pipeline.settings import Settings
from ml_pipeline.triggers.base import Event
from ml_pipeline.triggers.command import CommandTrigger
from ml_pipeline.triggers.instance import InstanceTrigger
from model_code import hyperparameters

if TYPE_CHECKING:
    from airflow.sdk import Context

# Lifetime of an instance beyond its longest job: its start, the upload, and the time to notice the end.
_SPARE = timedelta(hours=1)
# XCom that keeps the training's name until its end.
_NAME = "training_name"


class _Ec2Options(AwsOptions, total=False):
    """The arguments of `_Ec2Operator`, for its subclasses."""

    max_job_hours: Templated


class _Ec2Operator(AwsOperator):
    """The base of the operators of the instance and of its job.

    Args:
        max_job_hours: The job is killed after this, the instance terminates itself an hour later.
    """

    template_fields: tuple[str, ...] = ("max_job_hours",)

    def __init__(self, *, max_job_hours: Templated = DEFAULT_HOURS, **kwargs: Unpack[AwsOptions]) -> None:
        super().__init__(**kwargs)
        self.max_job_hours = max_job_hours

    def longest_run(self) -> timedelta:
        """Return how long the job may run."""
        return timedelta(seconds=seconds(min(float(self.max_job_hours), instance.LONGEST_HOURS)))


class CreateInstanceOperator(_Ec2Operator):
    """Start one instance, or find the one that an earlier try started, and wait deferred until SSM reaches it.

    Args:
        instance_type: "m5.xlarge"; a leading "ml." is dropped.
        dataset: Result of upload: its photos have to fit on the disk.
        wait_timeout: Longest wait for an instance.
    """

    template_fields = (*_Ec2Operator.template_fields, "instance_type", "dataset")

    def __init__(
        self,
        *,
        instance_type: Templated,
        dataset: Templated = None,
        wait_timeout: timedelta = timedelta(hours=4),
        **kwargs: Unpack[_Ec2Options],
    ) -> None:
        super().__init__(**kwargs)
        self.instance_type = instance_type
        self.dataset = dataset
        self.wait_timeout = wait_timeout
        self._instance_id: str | None = None

    def execute(self, context: Context) -> Machine:
        """Start or adopt the instance, then wait."""
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
            volume_gb=disk_gb(Instance.volume_gb, (self.dataset or {}).get("total_bytes", 0)),
        )
        # The public parameter moves to newer images: with it in the hash, a retry would start a second instance.
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
        raise self.deferred(context, InstanceTrigger, "complete", self.wait_timeout, instance_id=instance_id)

    def complete(self, context: Context, event: Event) -> Machine:
        """Return the instance that is online, or fail if it is gone."""
        if event["state"] != "online":
            raise JobInterrupted(f"instance {event['instance_id']} is {event['state']} before it came online")
        return {"instance_id": event["instance_id"], "instance_type": self.instance_type}

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, object] | None, context: Context
    ) -> object:
        """Go on, or terminate the instance whose wait timed out or failed, because its trigger cannot."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            instance_id = self._terminate_announced(context)
            raise JobFailed(f"instance {instance_id} was not online within {self.wait_timeout}") from None
        except WaitFailed:
            with suppress(Exception):  # while AWS does not answer; the teardown tries again
                self._terminate_announced(context)
            raise

    def on_kill(self) -> None:
        """Terminate the instance of a task that was killed before it deferred, unless the task will run again."""
        if self._instance_id and not self.will_run_again():
            self.client("ec2").terminate_instances(InstanceIds=[self._instance_id])

    def _terminate_announced(self, context: Context) -> str | None:
        ti = context["ti"]
        instance_id = ti.xcom_pull(task_ids=self.task_id, key="instance_id", map_indexes=ti.map_index)
        if not instance_id:
            return None
        self.client("ec2").terminate_instances(InstanceIds=[instance_id])
        return str(instance_id)


class Ec2TrainingOperator(_Ec2Operator):
    """Train on an instance as `TrainingOperator` does on SageMaker.

    Script, hyperparameters and the layout of the result are the same, so the models are interchangeable.

    Args:
        machine: Result of ec2.create.
        dataset, weights, embeddings, tuning, recipe, teacher: As in `TrainingOperator`.
    """

    template_fields = (
        *_Ec2Operator.template_fields,
        "machine",
        "dataset",
        "weights",
        "embeddings",
        "tuning",
        "recipe",
        "teacher",
    )

    def __init__(
        self,
        *,
        machine: Templated,
        dataset: Templated,
        weights: Templated,
        embeddings: Templated,
        tuning: Templated,
        recipe: Templated,
        teacher: Templated = None,
        **kwargs: Unpack[_Ec2Options],
    ) -> None:
        super().__init__(**kwargs)
        self.machine = machine
        self.dataset = dataset
        self.weights = weights
        self.embeddings = embeddings
        self.tuning = tuning
        self.recipe = recipe
        self.teacher = teacher
        self._command_id: str | None = None

    def execute(self, context: Context) -> Trained:
        """Send the command, or find the one that an earlier try sent, and wait deferred."""
        settings = Settings.load()
        self._task_instance = context["ti"]
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
                    teacher=self.teacher,
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
        context["ti"].xcom_push(key=_NAME, value=name)
        subject = {"command_id": self._command_id, "instance_id": instance_id}
        raise self.deferred(context, CommandTrigger, "complete", self.longest_run() + _SPARE, **subject)

    def complete(self, context: Context, event: Event) -> Trained:
        """Check the exit code of the command that has ended, and that the model exists."""
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
        """Cancel the command unless the task will run again; the teardown terminates the instance."""
        if self._command_id and not self.will_run_again():
            self.client("ssm").cancel_command(CommandId=self._command_id)


class TerminateInstanceOperator(AwsOperator):
    """Terminate every instance of the run, found by tag: also one whose create task died."""

    def execute(self, context: Context) -> Terminated:
        """Terminate; an instance that is gone already is no error."""
        run = context["dag_run"]
        ended = instances.terminate(self.client("ec2"), run.dag_id, run.run_id)
        for machine in ended:
            self.log.info("%s (%s) is terminated after %.0f s", *astuple(machine))
        return {
            "machines": [
                {"instance_id": e.instance_id, "instance_type": e.instance_type, "seconds": e.seconds}
                for e in ended
            ]
        }


def model_uri(settings: Settings, name: str) -> str:
    """Return the address of the model of job `name`, in the layout of a SageMaker training job."""
    return settings.s3(f"jobs/{name}/output/model.tar.gz")


def channel_document(channel: Channel) -> Document:
    """Build a channel of job.json."""
    return {
        "name": channel.name,
        "uri": channel.uri,
        "manifest": channel.data_type is DataType.MANIFEST,
    }


def metrics_in(log: Sequence[str]) -> dict[str, float]:
    """Return the last value of each metric in a log's lines, found by the expressions that SageMaker is given."""
    values: dict[str, float] = {}
    for definition in hyperparameters.metric_definitions():
        found = [match[1] for line in log if (match := re.search(definition["Regex"], line))]
        if found:
            values[definition["Name"]] = float(found[-1])
    return values
