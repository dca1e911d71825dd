"""Wait for a SageMaker job, pass its log on while waiting, and stop it when nobody waits any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.aws.jobs import JobKind, Phase, phase, reason
from ml_pipeline.aws.log_tail import LogTail
from ml_pipeline.errors import is_transient
from ml_pipeline.triggers.ownership import even_if_late, task_is_over

# While AWS cannot be reached the wait goes on, with longer pauses: the job runs on meanwhile.
_LONGEST_PAUSE = 60.0


class JobTrigger(BaseTrigger):
    """Fires once, when the job has ended: `{"job_name", "status", "reason"}`.

    There is no limit on the number of polls: the wait ends with the job, or with the time-out of `defer`.

    :param kind: a value of `JobKind`.
    :param job_name: the job.
    :param poll_seconds: pause between two Describe calls.
    :param access: fields of `AwsAccess`.
    """

    def __init__(self, kind: str, job_name: str, poll_seconds: float, access: dict[str, Any]) -> None:
        super().__init__()
        self.kind = JobKind(kind)
        self.job_name = job_name
        self.poll_seconds = poll_seconds
        self.access = AwsAccess(**access)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path and the arguments that make an equal trigger in another process."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "kind": self.kind.value,
                "job_name": self.job_name,
                "poll_seconds": self.poll_seconds,
                "access": self.access.to_dict(),
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the job has ended."""
        async with AsyncExitStack() as stack:
            sagemaker = await stack.enter_async_context(await self.access.async_client("sagemaker"))
            tail = await self._tail(stack)
            pause, progress = self.poll_seconds, ""
            while True:
                try:
                    description = await self._describe(sagemaker)
                    if tail:
                        for line in await tail.read():
                            self.log.info("%s", line)
                    pause = self.poll_seconds
                except Exception as error:
                    if not is_transient(error):
                        raise
                    pause = min(2 * pause, max(_LONGEST_PAUSE, self.poll_seconds))
                    self.log.warning("%s; asking again in %.0f s", error, pause)
                else:
                    if (now := progress_of(self.kind, description)) != progress:
                        progress = now
                        self.log.info("%s", progress)
                    status = description[self.kind.calls.status]
                    if phase(status) in (Phase.COMPLETED, Phase.DEAD):
                        yield TriggerEvent(
                            {
                                "job_name": self.job_name,
                                "status": status,
                                "reason": reason(description),
                            }
                        )
                        return
                await asyncio.sleep(pause)

    async def on_kill(self) -> None:
        """Stop the job if its task is over; leave it to the next try if the task was cleared or is
        retried.
        """
        await even_if_late(self._stop_if_over())

    async def _stop_if_over(self) -> None:
        if not await task_is_over(self.task_instance):
            self.log.info("job %s runs on: the next try of this task adopts it", self.job_name)
            return
        self.log.info("stopping job %s: nobody waits for it any more", self.job_name)
        async with await self.access.async_client("sagemaker") as sagemaker:
            await getattr(sagemaker, self.kind.calls.stop)(**{self.kind.calls.name: self.job_name})

    async def _describe(self, sagemaker: Any) -> dict[str, Any]:
        response: dict[str, Any] = await getattr(sagemaker, self.kind.calls.describe)(
            **{self.kind.calls.name: self.job_name}
        )
        return response

    async def _tail(self, stack: AsyncExitStack) -> LogTail | None:
        group = self.kind.calls.log_group
        if group is None:
            return None
        logs = await stack.enter_async_context(await self.access.async_client("logs"))
        return LogTail(logs, group, f"{self.job_name}/")


def progress_of(kind: JobKind, description: dict[str, Any]) -> str:
    """One line that says how far the job is; it changes only when there is something new to say."""
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
