"""A SageMaker of four job kinds in a dict: only what the rules of `ml_pipeline.aws.jobs` look at."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from ml_pipeline.aws.jobs import JobKind


def client_error(code: str, message: str, operation: str = "Any", status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},
        operation,
    )


class FakeSageMaker:
    """Jobs by name and status, and a journal of the calls that change something."""

    def __init__(self, **jobs: str) -> None:
        self.jobs = {name.replace("_", "-"): status for name, status in jobs.items()}
        self.created: list[str] = []
        self.stopped: list[str] = []
        self.create_error: ClientError | None = None

    def __getattr__(self, method: str) -> Any:
        for kind in JobKind:
            if method == kind.calls.describe:
                return lambda **request: self._describe(kind, request[kind.calls.name])
            if method == kind.calls.create:
                return lambda **request: self._create(request[kind.calls.name])
            if method == kind.calls.stop:
                return lambda **request: self._stop(request[kind.calls.name])
        raise AttributeError(method)

    def _describe(self, kind: JobKind, name: str) -> dict[str, Any]:
        if name not in self.jobs:
            raise client_error("ValidationException", "Requested resource not found.")
        return {kind.calls.name: name, kind.calls.status: self.jobs[name]}

    def _create(self, name: str) -> None:
        if self.create_error:
            error, self.create_error = self.create_error, None
            raise error
        if name in self.jobs:
            raise client_error("ResourceInUse", "Training job names must be unique")
        self.jobs[name] = "InProgress"
        self.created.append(name)

    def _stop(self, name: str) -> None:
        if self.jobs.get(name) != "InProgress":
            raise client_error(
                "ValidationException", "The request was rejected: the job is in status Completed."
            )
        self.jobs[name] = "Stopping"
        self.stopped.append(name)
