"""The operator that every paid SageMaker job derives from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperatorLink
from airflow.sdk.exceptions import TaskDeferralTimeout, TaskDeferred

from ml_pipeline.aws import jobs
from ml_pipeline.aws.jobs import JobKind, Phase, Started
from ml_pipeline.errors import JobFailed, job_error
from ml_pipeline.operators.aws import AwsOperator, origin_of
from ml_pipeline.operators.links import LINK_KEY, LogLink, SageMakerLink, thing
from ml_pipeline.requests import names
from ml_pipeline.settings import Settings
from ml_pipeline.triggers.job import JobTrigger
from ml_pipeline.triggers.ownership import is_over

Request = Callable[[str, Sequence[dict[str, str]]], dict[str, Any]]


class SageMakerJobOperator(AwsOperator):
    """Run one SageMaker job: create or adopt it, wait deferred, return a small result.

    A subclass says what the job is (`kind`, `slug`, `request`) and what is worth keeping of it (`result`).

    :param wait_timeout: longest wait beside the time that the job may run; then it is stopped and the task fails.
    """

    kind: ClassVar[JobKind]
    slug: ClassVar[str]
    operator_extra_links: tuple[BaseOperatorLink, ...] = (SageMakerLink(), LogLink())

    def __init__(self, *, wait_timeout: timedelta = timedelta(days=1), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wait_timeout = wait_timeout
        self._job_name: str | None = None
        self._task_instance: Any = None

    @abstractmethod
    def request(self, settings: Settings) -> Request:
        """A pure function from a name and tags to the Create request."""

    @abstractmethod
    def result(self, settings: Settings, description: dict[str, Any]) -> dict[str, Any]:
        """What the task returns, from the Describe response of the completed job."""

    def identity(self, build: Request) -> dict[str, Any]:
        """The part of the request that its name is hashed from: the same in every try of the task."""
        return build(names.PLACEHOLDER, [])

    def tags(self) -> dict[str, str]:
        """Tags beside those of DAG and run."""
        return {}

    def without_job(self, settings: Settings) -> dict[str, Any] | None:
        """The task's result if there is nothing to do, else None. Asked only while no job of this task
        exists.
        """
        return None

    def before_create(self, settings: Settings, name: str) -> None:
        """Write what job `name` will read. Called just before it is created."""

    def is_usable(self, settings: Settings, name: str) -> bool:
        """Whether a completed job of this task, maybe of long ago, still gives its result; if not, another is made."""
        return True

    def longest_run(self) -> timedelta:
        """How long the job may run by a limit of its own: so much longer than `wait_timeout` it is waited for."""
        return timedelta(0)

    def execute(self, context: Any) -> dict[str, Any]:
        """Create or adopt the job, then wait for it in the triggerer."""
        settings = Settings.load()
        self._task_instance = context["ti"]
        origin = origin_of(context)
        build = self.request(settings)
        template = self.identity(build)
        limit = self.kind.calls.name_limit

        def name_of(attempt: int) -> str:
            return names.job_name(self.slug, origin, template, attempt, limit)

        if jobs.status_of(self.client("sagemaker"), self.kind, name_of(1)) is None:
            done = self.without_job(settings)
            if done is not None:
                return done
        started = jobs.create_or_adopt(
            self.client("sagemaker"),
            self.kind,
            name_of,
            lambda name: build(name, names.tags(origin, **self.tags())),
            lambda name: self.before_create(settings, name),
            lambda name: self.is_usable(settings, name),
        )
        self._job_name = started.name
        self._announce(context, settings, started)
        if started.phase is Phase.COMPLETED:
            return self._finish(settings, started.name)
        trigger = JobTrigger(self.kind.value, started.name, settings.poll_seconds, self.access.to_dict())
        then = "again" if started.phase is Phase.STOPPING else "complete"
        raise TaskDeferred(trigger=trigger, method_name=then, timeout=self.wait_timeout + self.longest_run())

    def complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """The job has ended: return its result, or fail with SageMaker's reason."""
        status, name = event["status"], event["job_name"]
        if jobs.phase(status) is not Phase.COMPLETED:
            raise job_error(name, status, event["reason"])
        return self._finish(Settings.load(), name)

    def again(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """A job that was being stopped is gone: start over, with the next number."""
        self.log.info("job %s is %s", event["job_name"], event["status"])
        return self.execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Stop the job when the wait timed out: Airflow kills the trigger then without asking it."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            job = context["ti"].xcom_pull(
                task_ids=self.task_id, key=LINK_KEY, map_indexes=context["ti"].map_index
            )
            if job:
                jobs.stop(self.client("sagemaker"), self.kind, job["name"])
            raise JobFailed(
                f"waited {self.wait_timeout + self.longest_run()} for job {job and job['name']} and stopped it; "
                "raise wait_timeout or give the job more or larger machines"
            ) from None

    def on_kill(self) -> None:
        """Stop the job of a task that was killed before it deferred, unless the task will run again."""
        if self._job_name is None:
            return
        ti = self._task_instance
        with suppress(Exception):
            # Without an answer nobody is known to come back for the job, so it is stopped.
            states = ti.get_task_states(
                dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
            )
            if not is_over(states, ti.run_id):
                return
        self.log.info("stopping job %s", self._job_name)
        jobs.stop(self.client("sagemaker"), self.kind, self._job_name)

    def _announce(self, context: Any, settings: Settings, started: Started) -> None:
        calls = self.kind.calls
        self.log.info(
            "%s job %s (%s)", "created" if started.created else "adopted", started.name, started.status
        )
        links = thing(settings, started.name, self.kind.value, calls.console, calls.log_group)
        context["ti"].xcom_push(key=LINK_KEY, value=links)

    def _finish(self, settings: Settings, name: str) -> dict[str, Any]:
        description = jobs.describe(self.client("sagemaker"), self.kind, name)
        if description is None:
            raise JobFailed(f"job {name} was deleted while this task waited for it")
        return self.result(settings, description)
