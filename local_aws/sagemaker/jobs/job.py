"""A running job of any kind: a thread that takes it from capacity to its end, and the register of all jobs."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from local_aws.context import Context
from local_aws.execution.capacity import Lease
from local_aws.sagemaker.records import Records
from local_aws.state.beneath import remove_tree
from local_aws.state.resources import Document, Missing, Resource

logger = logging.getLogger(__name__)

FAILURE_REASON_CHARACTERS = 1024
"""Longest FailureReason that the service model allows."""
INTERNAL_ERROR = "InternalServerError"
"""Prefix of a failure that is SageMaker's own, after which a retry is allowed."""
END_SECONDS = 20


class JobFailed(Exception):
    """Ends a job as Failed; the text is its FailureReason, `ClientError: ...` or `AlgorithmError: ...`."""


class JobStopped(Exception):
    """Ends a job early: it was stopped, or its time was up."""


class JobEnded(Exception):
    """Leaves `execute` after the end was recorded."""


class Shutdown(Exception):
    """local_aws stops: leave the record as it is; the next start ends or resumes the job."""


class Job(ABC):
    """One job in its own thread. Subclasses implement its life in `execute`."""

    kind: str

    def __init__(self, context: Context, resource: Resource) -> None:
        self.context = context
        self.region, self.name, self.arn = resource.region, resource.name, resource.arn
        self.request = resource.document
        self.stop_requested = threading.Event()
        self.finished = threading.Event()
        self.folder: Path = context.jobs / self.region / self.kind / self.name
        self._thread = threading.Thread(target=self._run, name=f"{self.kind} {self.name}", daemon=True)

    @abstractmethod
    def execute(self) -> None:
        """Run the job.

        Raises:
            JobFailed: Ends it as Failed.
            JobStopped: Ends it as Stopped.
            Shutdown: Leaves it as recorded.
        """

    def mark_failed(self, reason: str) -> None:
        """Record the end as Failed."""
        self.mark("Failed", FailureReason=reason)

    def mark_stopped(self, reason: str) -> None:
        """Record the end as Stopped; what was written so far stays."""
        self.mark("Stopped", **({"FailureReason": reason} if reason else {}))

    def mark(self, status: str, **members: object) -> None:
        """Record the end, with further members of the document."""
        self.end(lambda document: document.update(ending(self.kind, status, **members)))

    def request_stop(self) -> None:
        """Request a stop; return at once."""
        self.stop_requested.set()

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout)

    def update(self, change: dict[str, object]) -> None:
        """Set members of the job's document."""
        self.context.store.update(self.kind, self.region, self.name, lambda document: document.update(change))

    def document(self) -> Document:
        """Return the job's document as recorded now."""
        return self.context.store.get(self.kind, self.region, self.name).document

    def end(self, change: Callable[[Document], None]) -> None:
        """Record the end, retrying until the store accepts it: clients learn of it nowhere else.

        Raises:
            Shutdown: local_aws stops first.
        """
        self.remove_folder()  # a full disk may have its room from here
        if not self.context.store.insist(self.kind, self.region, self.name, change, self.context.stopping):
            raise Shutdown

    def remove_folder(self) -> None:
        """Delete the job's files; the next start deletes those of a job that local_aws leaves behind."""
        if not self.context.stopping.is_set():
            remove_tree(self.folder)

    def check_running(self) -> None:
        """Raise JobStopped or Shutdown when the job must not continue."""
        if self.context.stopping.is_set():
            raise Shutdown
        if self.stop_requested.is_set():
            raise JobStopped("")

    def should_end(self) -> bool:
        """Return True when a wait must be abandoned."""
        return self.context.stopping.is_set() or self.stop_requested.is_set()

    def take_cores(self, cores: int, timeout: float | None = None) -> Lease:
        """Wait for cores.

        Args:
            cores: Cores to lease.
            timeout: Seconds to wait at most; None waits without limit.

        Raises:
            JobStopped: The job was stopped first, or the time ran out.
        """
        lease = self.context.capacity.acquire(cores, cancelled=self.should_end, timeout=timeout)
        if lease is None:
            self.check_running()
            raise JobStopped(f"CapacityError: no capacity within MaxPendingTimeInSeconds ({timeout:.0f} s)")
        return lease

    def _run(self) -> None:
        try:
            self._execute_and_end()
        except Shutdown:
            logger.info("%s %s stays as recorded: local_aws stops", self.kind, self.name)
        except JobEnded:
            logger.debug("%s %s ended", self.kind, self.name)
        except Missing:
            logger.info("%s %s was deleted while it ran", self.kind, self.name)
        except Exception:
            logger.exception("the end of %s %s could not be recorded", self.kind, self.name)
        finally:
            self.remove_folder()
            self.finished.set()

    def _execute_and_end(self) -> None:
        try:
            if self.context.store.get(self.kind, self.region, self.name).status == "Stopped":
                return  # before this thread had begun
            self.execute()
        except (Shutdown, JobEnded, Missing):
            raise
        except JobStopped as stopped:
            self.mark_stopped(str(stopped))
        except JobFailed as failed:
            self.mark_failed(cut(str(failed)))
        except Exception as error:
            logger.exception("%s %s failed inside local_aws", self.kind, self.name)
            self.mark_failed(cut(f"{INTERNAL_ERROR}: local_aws failed: {error!r}; its log says more."))


def ending(kind: str, status: str, **members: object) -> Document:
    """Return the members that record a job's end: the same pattern for all kinds, ProcessingJobStatus and -EndTime."""
    label = kind.removesuffix("-job").title().replace("-", "")
    return {f"{label}JobStatus": status, f"{label}EndTime": time.time(), **members}


class Jobs:
    """The jobs of this process."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str, str], Job] = {}
        self._lock = threading.Lock()

    def begin(self, job: Job) -> None:
        """Start a job and track it until it ends."""
        with self._lock:
            self._jobs = {key: known for key, known in self._jobs.items() if not known.finished.is_set()}
            self._jobs[(job.kind, job.region, job.name)] = job
        job.begin()

    def get(self, kind: str, region: str, name: str) -> Job | None:
        """Return the running job of that name, or None."""
        with self._lock:
            job = self._jobs.get((kind, region, name))
        return job if job and not job.finished.is_set() else None

    def stop(self, context: Context, resource: Resource, records: Records) -> None:
        """Mark a job as Stopping and notify its thread; a job that ends meanwhile keeps its end.

        Raises:
            AwsError: The job has ended.
        """
        records.require_running(resource)
        status = records.status

        def change(document: Document) -> None:
            if document[status] == "InProgress":
                document[status] = "Stopping"

        def stopped(document: Document) -> None:
            document.update(ending(resource.kind, "Stopped"))

        context.store.update(resource.kind, resource.region, resource.name, change)
        self.tell_to_stop(context, resource.kind, resource.region, resource.name, stopped)

    def tell_to_stop(
        self, context: Context, kind: str, region: str, name: str, stopped: Callable[[Document], None]
    ) -> None:
        """Notify the thread of a job that is Stopping.

        `stopped` records the end of a job without a thread, which broke or never began.
        """
        with self._lock, contextlib.suppress(Missing):  # locked: a job just created may be about to begin
            job = self._jobs.get((kind, region, name))
            if job and not job.finished.is_set():
                job.request_stop()
            elif context.store.get(kind, region, name).status == "Stopping":
                context.store.update(kind, region, name, stopped)

    def running(self) -> list[Job]:
        """Return all running jobs."""
        with self._lock:
            return [job for job in self._jobs.values() if not job.finished.is_set()]

    def join(self) -> None:
        """Wait until every job has noticed that local_aws stops."""
        deadline = time.monotonic() + END_SECONDS
        for job in self.running():
            job.join(max(0.0, deadline - time.monotonic()))


def cut(text: str, characters: int = FAILURE_REASON_CHARACTERS) -> str:
    """Shorten a text in the middle; the end of a traceback holds the reason."""
    return (
        text
        if len(text) <= characters
        else text[: characters // 4] + " ... " + text[-(characters * 3 // 4 - 5) :]
    )
