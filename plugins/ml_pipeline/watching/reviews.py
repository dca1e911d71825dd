"""The review queue of a data set: photos whose label is worth a person's time. S3 only, safe with two reviewers.

`datasets/<name>/reviews/queue/<sha256>.json` is a question, written once (If-None-Match), with the photo and a
thumbnail under `reviews/photos/`. Its answer, `reviews/answers/<sha256>.json`, is written once too: of two reviewers
who answer the same question, the second is told what the first has said. The corrections log gets the answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.dataset import corrections, reviewed
from ml_pipeline.dataset.corrections import Action, Correction

SUSPECTS = 20
"""Suspected labels asked about per data check, at most."""
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


class ReviewError(ValueError):
    """An answer that cannot be taken; the text names the fix."""


@dataclass(frozen=True)
class Question:
    """A photo that waits for a person.

    Attributes:
        prediction, probability: The model's answer.
        why: "uncertain", "unknown" or "suspect".
        origin: Endpoint (or "data report") that it comes from.
    """

    sha256: str
    prediction: str
    probability: float
    why: str
    origin: str
    photo_uri: str
    thumbnail_uri: str


def enqueue(
    s3: Client, bucket: str, name: str, look_uri: str, queue: Sequence[Mapping[str, Any]], origin: str
) -> int:
    """Add the photos that a look chose; those that were asked about before are left out.

    Args:
        s3: boto3 client of S3.
        bucket: Name of the project's bucket.
        name: Name of the data set.
        look_uri: Folder of the look, with `queue/<sha256>` and `queue/<sha256>.jpg`.
        queue: queue.json of the look.
        origin: Endpoint that received the photos, or "data report".

    Returns:
        Questions that are new.
    """
    forgotten = reviewed.denied(s3, bucket, name)
    added = 0
    for entry in queue:
        sha256 = entry["sha256"]
        if reviewed.hidden(sha256) in forgotten or objects.exists(
            s3, _uri(bucket, name, f"queue/{sha256}.json")
        ):
            continue
        # The photo first: a question whose photo is missing could not be answered.
        for suffix in ("", ".jpg"):
            _copy(s3, f"{look_uri}queue/{sha256}{suffix}", _uri(bucket, name, f"photos/{sha256}{suffix}"))
        question = Question(
            sha256=sha256,
            prediction=entry["prediction"],
            probability=entry["probability"],
            why=entry["why"],
            origin=origin,
            photo_uri=_uri(bucket, name, f"photos/{sha256}"),
            thumbnail_uri=_uri(bucket, name, f"photos/{sha256}.jpg"),
        )
        added += _write_once(s3, bucket, f"datasets/{name}/reviews/queue/{sha256}.json", vars(question))
    return added


def enqueue_suspects(s3: Client, bucket: str, name: str, suspects: Sequence[Mapping[str, Any]]) -> int:
    """Ask about labels that the data check suspects; a photo of the data set is shown by its thumbnail.

    Args:
        s3: boto3 client of S3.
        bucket: Name of the project's bucket.
        name: Name of the data set.
        suspects: `suspects.listed` of check.json, the most suspicious first.

    Returns:
        Questions that are new.
    """
    added = 0
    # A review never changes the split that compares with the champion.
    for suspect in [found for found in suspects if found["split"] != "test"][:SUSPECTS]:
        thumbnails = f"s3://{bucket}/datasets/{name}/thumbnails/{suspect['key']}"
        rest = next(objects.keys(s3, thumbnails), None)
        if rest is None:
            continue
        question = Question(
            sha256=suspect["key"] + rest.removesuffix(".jpg"),
            prediction=suspect["suggestion"],
            probability=1 / (1 + math.exp(-suspect["odds"])),
            why="suspect",
            origin="data report",
            photo_uri=thumbnails + rest,
            thumbnail_uri=thumbnails + rest,
        )
        key = f"datasets/{name}/reviews/queue/{question.sha256}.json"
        added += _write_once(s3, bucket, key, vars(question))
    return added


def questions(s3: Client, bucket: str, name: str) -> Iterator[Question]:
    """Photos without an answer, in the order of their hash."""
    answered = {key.removesuffix(".json") for key in objects.keys(s3, _uri(bucket, name, "answers/"))}
    for key in sorted(objects.keys(s3, _uri(bucket, name, "queue/"))):
        if key.removesuffix(".json") not in answered:
            yield Question(**objects.read_json(s3, _uri(bucket, name, f"queue/{key}")))


def answer(
    s3: Client,
    bucket: str,
    name: str,
    sha256: str,
    action: Action,
    label: str | None,
    who: str,
    why: str = "",
) -> None:
    """Answer a question: into the corrections log, then the answer itself.

    A reviewer who is killed in between answers again; the log then holds the same entry twice, which changes nothing.

    Raises:
        ReviewError: There is no such question, or another reviewer has answered it otherwise.
    """
    if not objects.exists(s3, _uri(bucket, name, f"queue/{sha256}.json")):
        raise ReviewError(f"no question about {sha256} in the queue of {name}")
    entry = Correction(sha256, action, label, who, corrections.now(), why)
    document = {"sha256": sha256, "action": action.value, "label": label, "who": who, "when": entry.when}
    key = f"datasets/{name}/reviews/answers/{sha256}.json"
    if not _write_once(s3, bucket, key, document):
        first = objects.read_json(s3, f"s3://{bucket}/{key}")
        if (first["action"], first["label"]) != (action.value, label):
            said = first["label"] or first["action"]
            raise ReviewError(
                f"{first['who']} has answered {said!r} already: correct it with ml_pipeline.corrections"
            )
    newest = corrections.load(s3, bucket, name).newest().get(sha256)
    if newest is None or (newest.action, newest.label) != (action, label):
        corrections.append(s3, bucket, name, [entry])


def _uri(bucket: str, name: str, rest: str) -> str:
    return f"s3://{bucket}/datasets/{name}/reviews/{rest}"


def _copy(s3: Client, source: str, target: str) -> None:
    bucket, key = objects.split_uri(target)
    s3.put_object(Bucket=bucket, Key=key, Body=objects.read(s3, source))


def _write_once(s3: Client, bucket: str, key: str, document: Mapping[str, Any]) -> bool:
    from botocore.exceptions import ClientError

    body = json.dumps(document, ensure_ascii=False).encode()
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json", IfNoneMatch="*")
    except ClientError as error:
        if error.response["Error"]["Code"] not in _TAKEN:
            raise
        return False
    return True
