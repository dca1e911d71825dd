"""Begin a look at an endpoint, and conclude it: which captures, what they mean, who is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypedDict

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.requests import names
from ml_pipeline.requests.types import Document
from ml_pipeline.watching import state as memory
from ml_pipeline.watching.decisions import Look, Policy, Verdict, decide
from ml_pipeline.watching.endpoints import Watched
from ml_pipeline.watching.state import State, Taken, Window

MOST_FILES = 5000
"""Capture files of one look; the next one takes the rest."""
IDLE = timedelta(days=7)
NAMESPACE = "MLPipeline/Watch"


class Begun(TypedDict):
    """A look that is to be taken; `accepted` capture files led to the model that serves (see `_accepted`)."""

    endpoint_name: str
    dataset_name: str
    dataset_version: str
    model_uri: str
    number: int
    level: float
    captures_uri: str
    files: int
    accepted: int


class Looked(TypedDict):
    """Result of watch's look; `look_uri` is the folder of look.json."""

    begun: Begun
    look_uri: str


class Concluded(TypedDict):
    """The result of a look."""

    endpoint_name: str
    dataset_name: str
    number: int
    verdict: str
    reason: str
    page_uri: str
    photos: int
    queued: int


def begin(
    s3: Client, bucket: str, endpoint: Watched, policy: Policy, now: datetime | None = None
) -> Begun | None:
    """Fix the captures of the next look; the same ones again while the last look that began has not ended.

    Returns:
        None where nothing was captured since the last look.
    """
    now = now or datetime.now(UTC)
    assert endpoint.captures_uri is not None
    assert endpoint.package is not None
    assert endpoint.dataset is not None
    captures = endpoint.captures_uri

    def step(state: State) -> State:
        if state.open is not None:
            return state
        keys = _new_keys(s3, captures, state)
        if not keys:
            return state
        since = state.covered_until or max(endpoint.since, now - timedelta(days=30))
        return state.begun(Window(state.next_number, tuple(keys), min(since, now), now))

    state = memory.change(s3, bucket, endpoint.name, step)
    window = state.open
    if window is None:
        return None
    objects.write_manifest(s3, manifest_uri(bucket, endpoint.name, window.number), captures, window.keys)
    accepted = _accepted(s3, bucket, endpoint, state)
    if accepted:
        manifest = manifest_uri(bucket, endpoint.name, window.number, "accepted")
        objects.write_manifest(s3, manifest, captures, accepted)
    return {
        "endpoint_name": endpoint.name,
        "dataset_name": endpoint.dataset,
        "dataset_version": endpoint.package.metadata["dataset_version"],
        "model_uri": endpoint.model_uri,
        "number": window.number,
        "level": policy.level(window.until - window.since),
        "captures_uri": captures,
        "files": len(window.keys),
        "accepted": len(accepted),
    }


def manifest_uri(bucket: str, endpoint: str, number: int, kind: str = "captures") -> str:
    """The ManifestFile of a look's captures, or of those that its reference is made of."""
    return f"s3://{bucket}/watch/{endpoint}/looks/{number:06d}/{kind}.manifest"


def conclude(
    s3: Client, bucket: str, begun: Begun, look_uri: str, document: Document, policy: Policy
) -> Concluded:
    """Enter a finished look into the endpoint's state; a second time it changes nothing and says the same.

    Args:
        s3: boto3 client of S3.
        bucket: Name of the project's bucket.
        begun: The look as it was begun.
        look_uri: Folder of look.json, with a trailing slash.
        document: look.json.
        policy: Error rates and thresholds of the watch.
    """
    number = begun["number"]

    def step(state: State) -> State:
        window = state.open
        if window is None or window.number != number:
            return state
        taken = judge(state, window, begun, look_uri, document, policy)
        return state.ended(
            taken,
            counted=taken.verdict != Verdict.TOO_FEW,
            proposal=taken.verdict == Verdict.PROPOSAL,
            cooldown=policy.cooldown,
        )

    after = memory.change(s3, bucket, begun["endpoint_name"], step)
    taken = next((taken for taken in after.looks if taken.look.number == number), None)
    if taken is None:
        raise memory.WatchError(f"look {number} at {begun['endpoint_name']} was never begun: run watch again")
    return {
        "endpoint_name": begun["endpoint_name"],
        "dataset_name": begun["dataset_name"],
        "number": number,
        "verdict": taken.verdict,
        "reason": taken.reason,
        "page_uri": taken.page_uri,
        "photos": taken.look.photos,
        "queued": int(document.get("queued", 0)),
    }


def judge(
    state: State, window: Window, begun: Begun, look_uri: str, document: Document, policy: Policy
) -> Taken:
    """Decide about the look under way."""
    accuracy = document["accuracy"] or {}
    look = Look(
        number=window.number,
        ended=window.until,
        photos=document["photos"],
        p=document["p"],
        level=begun["level"],
        model=document["model"],
        accuracy=accuracy.get("value"),
        low=accuracy.get("low"),
        high=accuracy.get("high"),
    )
    before = [taken.look for taken in state.looks]
    decision = decide(look, before, document["reference"]["accuracy"], state.quiet_until, policy)
    unknown = document["unknown"] or {}
    return Taken(
        look,
        decision.verdict.value,
        decision.reason,
        f"{look_uri}page.html",
        document["truth"],
        unknown.get("share"),
    )


def metrics(concluded: Concluded, document: Document) -> list[Document]:
    """MetricData of a look: the alarm of the endpoint watches `Drift`, which is 1 where the photos have changed."""
    values: dict[str, float | None] = {
        "Photos": float(document["photos"]),
        "Drift": float(concluded["verdict"] in (Verdict.ALARM, Verdict.PROPOSAL)),
        "EstimatedAccuracy": (document["accuracy"] or {}).get("value"),
        "TrueAccuracy": (document["truth"] or {}).get("value"),
        "UnknownShare": (document["unknown"] or {}).get("share"),
    }
    dimensions = [{"Name": "EndpointName", "Value": concluded["endpoint_name"]}]
    return [
        {"MetricName": name, "Dimensions": dimensions, "Value": value}
        for name, value in values.items()
        if value is not None
    ]


def alarm(endpoint: str) -> Document:
    """The request of PutMetricAlarm: on while the last look saw other photos than the reference holds."""
    return {
        "AlarmName": names.alarm(endpoint, "drift"),
        "AlarmDescription": "The photos that the endpoint is asked about have changed: see watch in Airflow",
        "Namespace": NAMESPACE,
        "MetricName": "Drift",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
        "Statistic": "Maximum",
        "Period": 3600,
        "EvaluationPeriods": 1,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "ignore",
    }


def idle(state: State, endpoint: Watched, usd_per_hour: float | None, now: datetime) -> str | None:
    """A line about an endpoint that has had no traffic for a week, with its cost since then; else None."""
    silent = now - (state.looks[-1].look.ended if state.looks else endpoint.since)
    if silent < IDLE:
        return None
    hours = silent.total_seconds() / 3600
    cost = "an unknown amount" if usd_per_hour is None else f"about ${usd_per_hour * hours:.2f} an instance"
    return f"endpoint {endpoint.name} had no traffic for {silent.days} days, which cost {cost}: teardown removes it"


def _accepted(s3: Client, bucket: str, endpoint: Watched, state: State) -> list[str]:
    """Return the capture files of the two looks of a proposal after which the endpoint got another model.

    The photos that led there are what the new model is for. Files that their retention has removed are left out.
    """
    looks = {taken.look.number: taken.look for taken in state.looks}
    number = state.proposals[-1] if state.proposals else 0
    if number not in looks or looks[number].ended > endpoint.since:
        return []
    assert endpoint.captures_uri is not None
    there = set(objects.keys(s3, endpoint.captures_uri))
    listed = [
        key
        for before in (number - 1, number)
        if before in looks
        for key in objects.read_json(s3, manifest_uri(bucket, endpoint.name, before))[1:]
    ]
    return [key for key in listed if key in there]


def _new_keys(s3: Client, captures_uri: str, state: State) -> list[str]:
    """Names of capture files that no look has counted, oldest first."""
    bucket, prefix = objects.split_uri(captures_uri)
    names = []
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=prefix, StartAfter=prefix + state.floor()
    )
    for page in pages:
        for item in page.get("Contents", []):
            name = item["Key"][len(prefix) :]
            if name.endswith(".jsonl") and name not in state.seen:
                names.append(name)
            if len(names) == MOST_FILES:
                return names
    return names
