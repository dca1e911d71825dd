"""The review queue of a data set: photos whose label is worth a person's time. S3 only, safe with two reviewers.

`datasets/<name>/reviews/queue/<sha256>.json` is a question, written once (If-None-Match), with the photo and a
thumbnail under `reviews/photos/`. Its answer, `reviews/answers/<sha256>.json`, is written once too: of two reviewers
who answer the same question, the second is told what the first has said. The corrections log gets the answer.

To undo an answer is to write `reviews/answers-undone/<sha256>.json`, once: the question is open again, and its next
answer is `<sha256>.2.json`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.dataset import corrections, reviewed
from ml_pipeline.dataset.corrections import Action, Correction
from model_code.data.records import hidden
from model_code.data.versions import thumbnails

SUSPECTS = 20
"""Suspected labels asked about per data check, at most."""
# 100,000 lines of photos.jsonl have 25 MB.
_CHUNK = 2**20
_ANSWERS, _UNDONE = "answers/", "answers-undone/"
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
        photo_uri, thumbnail_uri: Its objects; of a photo of the data set, those that hold all photos of its shard.
        shard: SHA-256 of the shard of a photo of the data set.
    """

    sha256: str
    prediction: str
    probability: float
    why: str
    origin: str
    photo_uri: str
    thumbnail_uri: str
    shard: str = ""


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
        if hidden(sha256) in forgotten or objects.exists(s3, _uri(bucket, name, f"queue/{sha256}.json")):
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


def enqueue_suspects(
    s3: Client, bucket: str, name: str, version: str, suspects: Sequence[Mapping[str, Any]]
) -> int:
    """Ask about labels that the data check suspects; a photo of the data set is shown by its thumbnail.

    Args:
        s3: boto3 client of S3.
        bucket: Name of the project's bucket.
        name: Name of the data set.
        version: The version that was checked.
        suspects: `suspects.listed` of check.json, the most suspicious first.

    Returns:
        Questions that are new.
    """
    # A review never changes the split that compares with the champion.
    chosen = {found["key"]: found for found in suspects if found["split"] != "test"}
    chosen = dict(islice(chosen.items(), SUSPECTS))
    added = 0
    for row in _rows(s3, bucket, name, version, chosen) if chosen else ():
        folder = f"s3://{bucket}/datasets/{name}/"
        # Releases before made an object of each thumbnail, or none.
        pictures = (folder + thumbnails.key(row["shard"]), f"{folder}thumbnails/{row['sha256']}.jpg")
        shown = next((uri for uri in pictures if objects.exists(s3, uri)), None)
        if shown is None:
            continue
        suspect = chosen[row["key"]]
        question = Question(
            sha256=row["sha256"],
            prediction=suspect["suggestion"],
            probability=1 / (1 + math.exp(-suspect["odds"])),
            why="suspect",
            origin="data report",
            photo_uri=f"{folder}shards/{row['shard']}.tar",
            thumbnail_uri=shown,
            shard=row["shard"],
        )
        key = f"datasets/{name}/reviews/queue/{question.sha256}.json"
        added += _write_once(s3, bucket, key, vars(question))
    return added


def _rows(
    s3: Client, bucket: str, name: str, version: str, keys: Collection[str]
) -> Iterator[dict[str, str]]:
    """Lines of a version's photos.jsonl."""
    key = f"datasets/{name}/versions/{version}/photos.jsonl"
    lines = s3.get_object(Bucket=bucket, Key=key)["Body"].iter_lines(_CHUNK)
    return (row for row in map(json.loads, lines) if row["key"] in keys)


def waiting(s3: Client, bucket: str, name: str) -> list[str]:
    """SHA-256 of the photos of the queue without an answer, in their order."""
    answered = rounds(s3, bucket, name)
    names = (key.removesuffix(".json") for key in objects.keys(s3, _uri(bucket, name, "queue/")))
    return sorted(sha256 for sha256 in names if sha256 not in answered)


def questions(s3: Client, bucket: str, name: str) -> Iterator[Question]:
    """Photos without an answer, in the order of their hash."""
    for sha256 in waiting(s3, bucket, name):
        yield Question(**objects.read_json(s3, _uri(bucket, name, f"queue/{sha256}.json")))


def rounds(s3: Client, bucket: str, name: str, sha256: str = "") -> Counter[str]:
    """Photos with an answer that was not taken back, and how often each was answered; all of them, or one."""
    answered, undone = (
        Counter(key[:64] for key in _beginning(s3, _uri(bucket, name, folder), sha256))
        for folder in (_ANSWERS, _UNDONE)
    )
    return Counter({photo: count for photo, count in answered.items() if count > undone[photo]})


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
    """Answer a question: the answer, then its entry in the corrections log.

    A reviewer who is killed in between answers again, which writes what is missing and changes nothing else.

    Raises:
        ReviewError: There is no such question, or another reviewer has answered it otherwise.
    """
    if not objects.exists(s3, _uri(bucket, name, f"queue/{sha256}.json")):
        raise ReviewError(f"no question about {sha256} in the queue of {name}")
    entry = Correction(sha256, action, label, who, corrections.now(), why)
    document = {"sha256": sha256, "action": action.value, "label": label, "who": who, "when": entry.when}
    undone = len(list(_beginning(s3, _uri(bucket, name, _UNDONE), sha256)))
    key = _key(name, _ANSWERS, sha256, undone + 1)
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


def undo(s3: Client, bucket: str, name: str, sha256: str, who: str) -> None:
    """Take an answer of one's own back: what the log said before counts again, and the question is open.

    Raises:
        ReviewError: There is no answer, or another reviewer gave it.
    """
    answered = rounds(s3, bucket, name, sha256)[sha256]
    if not answered:
        raise ReviewError(f"no one has answered the question about {sha256}")
    given = objects.read_json(s3, f"s3://{bucket}/{_key(name, _ANSWERS, sha256, answered)}")
    if given["who"] != who:
        raise ReviewError(f"{given['who']} gave this answer: only {given['who']} may take it back")
    entries = [entry for entry in corrections.load(s3, bucket, name).entries if entry.sha256 == sha256]
    if entries and (entries[-1].action, entries[-1].label) == (given["action"], given["label"]):
        before = entries[-2] if len(entries) > 1 else None
        action, label = (before.action, before.label) if before else (Action.KEEP, None)
        taken = Correction(sha256, action, label, who, corrections.now(), "taken back")
        corrections.append(s3, bucket, name, [taken])
    _write_once(s3, bucket, _key(name, _UNDONE, sha256, answered), {"who": who})


def _key(name: str, folder: str, sha256: str, number: int) -> str:
    suffix = "" if number == 1 else f".{number}"
    return f"datasets/{name}/reviews/{folder}{sha256}{suffix}.json"


def _beginning(s3: Client, folder: str, start: str) -> Iterator[str]:
    """Names of the objects in a folder that begin with `start`."""
    return (start + rest for rest in objects.keys(s3, folder + start))


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
