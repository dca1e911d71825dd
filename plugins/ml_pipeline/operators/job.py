"""The operator that every paid SageMaker job derives from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, Unpack

from airflow.providers.common.compat.sdk import BaseOperatorLink
from airflow.sdk.exceptions import TaskDeferralTimeout

from ml_pipeline.aws import jobs
from ml_pipeline.aws.jobs import JobKind, Phase, Started
from ml_pipeline.errors import JobFailed, WaitFailed, job_error
from ml_pipeline.operators.aws import AwsOperator, AwsOptions, origin_of
from ml_pipeline.operators.links import LINK_KEY, LogLink, SageMakerLink, thing
from ml_pipeline.requests import names
from ml_pipeline.requests.types import Document, Tags
from ml_pipeline.settings import Settings
from ml_pipeline.triggers.base import Event
from ml_pipeline.triggers.job import JobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

# A pure function from a name and tags to the Create request.
Request = Callable[[str, Tags], Document]
Result = TypeVar("Result", bound=Mapping[str, object])


class JobOptions(AwsOptions, total=False):
    """The arguments of `SageMakerJobOperator`, for its subclasses."""

    wait_timeout: timedelta


class SageMakerJobOperator(AwsOperator, Generic[Result]):
    """Run one SageMaker job: create or adopt it, wait deferred, return a small result.

    A subclass says what the job is (`kind`, `slug`, `request`) and what to keep of it (`result`).

    Args:
        wait_timeout: Longest wait beyond the time that the job may run; then it is stopped and the task fails.
    """

    kind: ClassVar[JobKind]
    slug: ClassVar[str]
    operator_extra_links: tuple[BaseOperatorLink, ...] = (SageMakerLink(), LogLink())

    def __init__(self, *, wait_timeout: timedelta = timedelta(days=1), **kwargs: Unpack[AwsOptions]) -> None:
        super().__init__(**kwargs)
        self.wait_timeout = wait_timeout
        self._job_name: str | None = None

    @abstractmethod
    def request(self, settings: Settings) -> Request:
        """Return the function that builds the Create request."""

    @abstractmethod
    def result(self, settings: Settings, description: Document) -> Result:
        """Build the task's result from the Describe response of the completed job."""

    def identity(self, build: Request) -> Document:
        """Return the part of the request that its name is hashed from: the same in every try of the task."""
        return build(names.PLACEHOLDER, [])

    def tags(self) -> dict[str, str]:
        """Return tags in addition to those of DAG and run."""
        return {}

    def without_job(self, settings: Settings) -> Result | None:
        """Return the result if there is nothing to do, else None. Asked only while no job of this task exists."""
        return None

    def before_create(self, settings: Settings, name: str) -> None:
        """Write what job `name` will read. Called just before it is created."""

    def is_usable(self, settings: Settings, name: str) -> bool:
        """Return False if a completed job of this task, maybe an old one, lost its results: another is made then."""
        return True

    def longest_run(self) -> timedelta:
        """Return how long the job may run by a limit of its own; the wait is longer by `wait_timeout`."""
        return timedelta(0)

    def execute(self, context: Context) -> Result:
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
        then = "again" if started.phase is Phase.STOPPING else "complete"
        subject = {"kind": self.kind.value, "job_name": started.name}
        raise self.deferred(context, JobTrigger, then, self.wait_timeout + self.longest_run(), **subject)

    def complete(self, context: Context, event: Event) -> Result:
        """Return the result of the job that has ended, or fail with SageMaker's reason."""
        status, name = event["status"], event["job_name"]
        if jobs.phase(status) is not Phase.COMPLETED:
            raise job_error(name, status, event["reason"])
        return self._finish(Settings.load(), name)

    def again(self, context: Context, event: Event) -> Result:
        """Start over with the next number: the job that was being stopped is gone."""
        self.log.info("job %s is %s", event["job_name"], event["status"])
        return self.execute(context)

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, object] | None, context: Context
    ) -> object:
        """Go on with the job that has ended; stop one whose wait timed out or failed, because its trigger cannot."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            name = self._stop_announced(context)
            raise JobFailed(
                f"waited {self.wait_timeout + self.longest_run()} for job {name} and stopped it; "
                "raise wait_timeout or give the job more or larger machines"
            ) from None
        except WaitFailed:
            with suppress(Exception):  # while AWS does not answer; the teardown tries again
                self._stop_announced(context)
            raise

    def on_kill(self) -> None:
        """Stop the job of a task that was killed before it deferred, unless the task will run again."""
        if self._job_name is None or self.will_run_again():
            return
        self.log.info("stopping job %s", self._job_name)
        jobs.stop(self.client("sagemaker"), self.kind, self._job_name)

    def _stop_announced(self, context: Context) -> str | None:
        ti = context["ti"]
        job = ti.xcom_pull(task_ids=self.task_id, key=LINK_KEY, map_indexes=ti.map_index)
        if not job:
            return None
        jobs.stop(self.client("sagemaker"), self.kind, job["name"])
        return str(job["name"])

    def _announce(self, context: Context, settings: Settings, started: Started) -> None:
        calls = self.kind.calls
        self.log.info(
            "%s job %s (%s)", "created" if started.created else "adopted", started.name, started.status
        )
        links = thing(settings, started.name, self.kind.value, calls.console, calls.log_group)
        context["ti"].xcom_push(key=LINK_KEY, value=links)

    def _finish(self, settings: Settings, name: str) -> Result:
        description = jobs.describe(self.client("sagemaker"), self.kind, name)
        if description is None:
            raise JobFailed(f"job {name} was deleted while this task waited for it")
        return self.result(settings, description)
