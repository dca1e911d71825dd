"""Exactly one paid job: what is created, adopted, reused, waited out."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from ml_pipeline.aws import jobs
from ml_pipeline.aws.jobs import JobKind, Phase, Started
from ml_pipeline.requests import names
from tests.ml_pipeline.fake_sagemaker import FakeSageMaker, client_error


def start(client: FakeSageMaker, kind: JobKind = JobKind.TRAINING) -> Started:
    return jobs.create_or_adopt(client, kind, lambda n: f"job-{n}", lambda name: {kind.calls.name: name})


@pytest.mark.parametrize("kind", list(JobKind))
def test_the_first_try_creates_and_the_second_adopts(kind: JobKind) -> None:
    client = FakeSageMaker()
    assert start(client, kind) == Started("job-1", "InProgress", created=True)
    assert start(client, kind) == Started("job-1", "InProgress", created=False)
    assert client.created == ["job-1"]


@pytest.mark.parametrize(
    ("found", "expected", "created"),
    [
        ({"job_1": "Completed"}, "job-1", []),
        ({"job_1": "InProgress"}, "job-1", []),
        ({"job_1": "Stopping"}, "job-1", []),
        ({"job_1": "Failed"}, "job-2", ["job-2"]),
        ({"job_1": "Stopped", "job_2": "Failed"}, "job-3", ["job-3"]),
        ({"job_1": "Failed", "job_2": "Completed"}, "job-2", []),
    ],
)
def test_the_number_rises_only_after_a_dead_job(
    found: dict[str, str], expected: str, created: list[str]
) -> None:
    client = FakeSageMaker(**found)
    assert start(client).name == expected
    assert client.created == created


def test_a_completed_job_whose_results_are_gone_is_passed_over() -> None:
    client = FakeSageMaker(job_1="Completed", job_2="InProgress")

    def again() -> Started:
        return jobs.create_or_adopt(
            client, JobKind.PROCESSING, lambda n: f"job-{n}", lambda name: {"ProcessingJobName": name},
            is_usable=lambda name: name == "job-3",
        )  # fmt: skip

    assert again() == Started("job-2", "InProgress", created=False)
    client.jobs["job-2"] = "Completed"
    assert again() == Started("job-3", "InProgress", created=True)
    client.jobs["job-3"] = "Completed"
    assert again() == Started("job-3", "Completed", created=False)


def test_a_job_that_is_being_stopped_is_to_be_waited_out() -> None:
    assert start(FakeSageMaker(job_1="Stopping")).phase is Phase.STOPPING


def test_a_job_of_a_concurrent_attempt_is_adopted() -> None:
    client = FakeSageMaker()
    original = client._describe
    calls = []

    def late(kind: JobKind, name: str) -> dict[str, object]:
        calls.append(name)
        if len(calls) == 1:
            client.jobs[name] = "InProgress"
            raise client_error("ValidationException", "Requested resource not found.")
        return original(kind, name)

    client._describe = late  # type: ignore[method-assign]
    assert start(client) == Started("job-1", "InProgress", created=False)
    assert client.created == []


def test_a_name_that_is_taken_but_never_seen_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_TAKEN_PAUSE_SECONDS", 0.0)
    client = FakeSageMaker()
    client._create = lambda name: _raise("ResourceInUse")  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="taken"):
        start(client)


@pytest.mark.parametrize("code", ["ValidationException", "ResourceLimitExceeded", "ThrottlingException"])
def test_other_answers_of_create_are_raised(code: str) -> None:
    client = FakeSageMaker()
    client.create_error = client_error(code, "no")
    with pytest.raises(ClientError, match=code):
        start(client)


def test_a_bad_describe_is_not_taken_for_absence() -> None:
    error = client_error(
        "ValidationException", "1 validation error detected: Value 'x_y' at 'trainingJobName'"
    )
    assert not jobs.is_missing(error)
    assert jobs.is_missing(client_error("ValidationException", "Requested resource not found."))
    assert jobs.is_missing(client_error("ResourceNotFound", "Requested resource not found"))
    assert jobs.is_missing(client_error("ValidationException", 'Could not find endpoint "arn:...".'))


def test_stopping_what_has_ended_is_no_error() -> None:
    client = FakeSageMaker(job_1="Completed", job_2="InProgress")
    assert not jobs.stop(client, JobKind.TRAINING, "job-1")
    assert jobs.stop(client, JobKind.TRAINING, "job-2")
    assert client.stopped == ["job-2"]


ORIGIN = names.Origin("dag", "manual__2026-11-22T21:00:00+00:00", "train")


def test_names_follow_the_content_and_nothing_else() -> None:
    request = {"TrainingJobName": names.PLACEHOLDER, "Image": "a", "Tags": [{"Key": "x", "Value": "y"}]}
    name = names.job_name("train", ORIGIN, request, 1)
    assert name == names.job_name("train", ORIGIN, {"Image": "a", "TrainingJobName": names.PLACEHOLDER}, 1)
    assert name.endswith("-1")
    others = {
        names.job_name("train", ORIGIN, {**request, "Image": "b"}, 1),
        names.job_name("train", ORIGIN, request, 2),
        names.job_name("train", names.Origin("dag", "other run", "train"), request, 1),
        names.job_name("train", names.Origin("dag", ORIGIN.run_id, "train", 3), request, 1),
    }
    assert len(others) == 4
    assert name not in others


def test_names_keep_within_what_the_api_takes() -> None:
    name = names.job_name("A very long Kind of job, indeed", ORIGIN, {}, 12, names.TUNING_LIMIT)
    assert len(name) <= 32
    assert name == name.lower()
    assert not name.startswith("-")


def _raise(code: str) -> None:
    raise client_error(code, "in use")
