"""Wait for a SageMaker job, pass its log on meanwhile, and stop it when its task is over."""

from __future__ import annotations

from dataclasses import dataclass

from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import JobKind, Phase, is_missing, is_over_already, phase, reason
from ml_pipeline.aws.log_tail import LogTail
from ml_pipeline.requests.types import Document
from ml_pipeline.triggers.base import FAILURE, Event, PollingTrigger
from ml_pipeline.triggers.clients import Clients


@dataclass(eq=False, repr=False, kw_only=True)
class JobTrigger(PollingTrigger):
    """Fire when the job has ended: `{"job_name", "status", "reason"}`.

    The number of polls has no limit: the wait ends with the job, or with the timeout of `defer`.

    Args:
        kind: A value of `JobKind`.
        job_name: The job.
    """

    kind: str
    job_name: str

    def __post_init__(self) -> None:
        super().__post_init__()
        self._calls = JobKind(self.kind).calls
        self._progress = ""
        group = self._calls.log_group
        self._tail = LogTail(group, f"{self.job_name}/") if group else None

    @property
    def subject(self) -> str:
        """The job."""
        return f"{self.kind} job {self.job_name}"

    async def poll(self, clients: Clients) -> Event | None:
        """Look at the job's status and pass new log lines on."""
        from botocore.exceptions import ClientError

        try:
            description = await self._describe(await clients.get("sagemaker"))
        except ClientError as error:
            if is_missing(error):
                return {FAILURE: f"{self.subject} was deleted; clear this task to run it again"}
            raise
        if self._tail:
            await self.pass_on(self._tail, clients)
        if (now := progress_of(JobKind(self.kind), description)) != self._progress:
            self._progress = now
            self.log.info("%s", now)
        status = description[self._calls.status]
        if phase(status) not in (Phase.COMPLETED, Phase.DEAD):
            return None
        return {"job_name": self.job_name, "status": status, "reason": reason(description)}

    async def stop(self, clients: Clients) -> None:
        """Stop the job; one that has ended meanwhile is no error."""
        from botocore.exceptions import ClientError

        sagemaker = await clients.get("sagemaker")
        try:
            await getattr(sagemaker, self._calls.stop)(**{self._calls.name: self.job_name})
        except ClientError as error:
            if not is_over_already(error):
                raise
            self.log.info("%s had ended already", self.subject)

    async def _describe(self, sagemaker: Client) -> Document:
        describe = getattr(sagemaker, self._calls.describe)
        response: Document = await describe(**{self._calls.name: self.job_name})
        return response


def progress_of(kind: JobKind, description: Document) -> str:
    """Return one line about the job's progress; it changes only when there is something new to say."""
    if kind is not JobKind.TUNING:
        status = str(description.get("SecondaryStatus") or description[kind.calls.status])
        return f"job {description[kind.calls.name]}: {status}"
    counters = description.get("TrainingJobStatusCounters", {})
    done = sum(counters.get(key, 0) for key in ("Completed", "Stopped", "NonRetryableError"))
    total = description["HyperParameterTuningJobConfig"]["ResourceLimits"].get(
        "MaxNumberOfTrainingJobs", done
    )
    line = f"progress done={done} total={total} unit=trials"
    best = description.get("BestTrainingJob", {}).get("FinalHyperParameterTuningJobObjectiveMetric")
    return f"{line} best_{best['MetricName']}={best['Value']:.4f}" if best else line
