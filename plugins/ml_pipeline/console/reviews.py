"""Review page, and the corrections of the Data page: answers of people, into the corrections log of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from ml_pipeline.console import data
from ml_pipeline.console.store import Absent, Store
from ml_pipeline.dataset import corrections
from ml_pipeline.dataset.corrections import Action, Correction
from ml_pipeline.requests.types import Document
from ml_pipeline.watching import reviews
from ml_pipeline.watching.reviews import Asked

# Photos that a page of the queue holds; it asks again when they run out.
BATCH = 20
MOST_CLASSES = 2000


class Refused(ValueError):
    """A correction that cannot be made; the message names the fix."""


def newest(store: Store, name: str) -> dict[str, Correction]:
    """Return the corrections that count, by SHA-256."""
    s3, bucket = store.client("s3"), store.settings.bucket
    return store.brief(("corrections", name), lambda: corrections.load(s3, bucket, name).newest())


def queue(store: Store, name: str, who: str) -> Document:
    """Return the next photos that wait for a person: of the traffic first, then those that the data check suspects.

    Two reviewers get different orders, so that they seldom meet at the same photo.
    """
    s3, bucket = store.client("s3"), store.settings.bucket
    waiting = reviews.waiting(s3, bucket, name)
    suspects, missing = _suspects(store, name)
    chosen = sorted(waiting, key=partial(_order, who))[:BATCH]
    asked = store.every(partial(_question, store, name), chosen)
    more = sorted(suspects, key=lambda row: _order(who, row["sha256"]))[: BATCH - len(chosen)]
    return {
        "name": name,
        "photos": [row for row in asked if row is not None] + more,
        "waiting": len(waiting),
        "suspects": len(suspects),
        "missing": missing,
        "classes": _classes(store, name),
    }


def answer(
    store: Store, name: str, sha256: str, action: Action, label: str | None, who: str, asked: Asked
) -> None:
    """Write an answer.

    Raises:
        ReviewError: Another reviewer was faster, and has said something else.
    """
    known = class_name(label) if label else None
    reviews.answer(store.client("s3"), store.settings.bucket, name, sha256, action, known, who, asked=asked)
    store.forget(("corrections", name))


def undo(store: Store, name: str, sha256: str, who: str, asked: Asked) -> None:
    """Take an answer of `who` back.

    Raises:
        ReviewError: There is none, or it is someone else's.
    """
    reviews.undo(store.client("s3"), store.settings.bucket, name, sha256, who, asked)
    store.forget(("corrections", name))


def correct(
    store: Store, name: str, photos: Sequence[str], action: Action, label: str | None, who: str, why: str
) -> int:
    """Write the same correction of each photo; returns their number.

    Raises:
        Refused: There is no photo, or the class cannot be named so.
    """
    known = class_name(label) if label else None
    if not photos:
        raise Refused("there is no such photo: nothing was corrected")
    when = corrections.now()
    entries = [Correction(sha256, action, known, who, when, why) for sha256 in photos]
    corrections.append(store.client("s3"), store.settings.bucket, name, entries)
    store.forget(("corrections", name))
    return len(entries)


def marked(store: Store, name: str, page: Document) -> Document:
    """Return a page of photos, each with the correction that the next version will apply."""
    said = newest(store, name)
    rows = [{**row, "correction": _short(said.get(row["sha256"]))} for row in page["photos"]]
    return {**page, "photos": rows}


def _short(entry: Correction | None) -> Document | None:
    return {"action": entry.action, "label": entry.label, "who": entry.who} if entry else None


def rename(store: Store, name: str, version: str, label: str, to: str, who: str) -> int:
    """Give all photos of a class another one, a new one (rename) or one that exists (merge); returns their number.

    Raises:
        Refused: The class has no photo, or is called so already.
    """
    if class_name(to) == label:
        raise Refused(f"the class is called {label!r} already")
    said = newest(store, name)
    photos = [row.sha256 for row in data.rows(store, name, version) if _now(row, said) == label]
    return correct(store, name, photos, Action.LABEL, to, who, f"class {label} became {to}")


def class_name(label: str) -> str:
    """Return a class's name as upload takes it.

    Raises:
        Refused: It cannot be the name of a class.
    """
    from model_code.data.source import DatasetError, class_name

    try:
        return class_name(label)
    except DatasetError as error:
        raise Refused("name the class in printable characters, 200 bytes at most") from error


def _now(photo: data.Photo, said: dict[str, Correction]) -> str:
    entry = said.get(photo.sha256)
    return entry.label if entry and entry.label else photo.label


def _order(who: str, sha256: str) -> str:
    return hashlib.sha256(f"{who}:{sha256}".encode()).hexdigest()


def _question(store: Store, name: str, sha256: str) -> Document:
    s3, bucket = store.client("s3"), store.settings.bucket

    def read() -> Document:
        found = reviews.question(s3, bucket, name, sha256)
        return {
            "sha256": sha256,
            "asked": Asked.QUEUE.value,
            "label": None,
            "suggestion": found.prediction,
            "probability": found.probability,
            "why": found.why,
            "origin": found.origin,
        }

    return store.lasting(("question", name, sha256), read)


def _suspects(store: Store, name: str) -> tuple[list[Document], str | None]:
    """Photos of the newest version that the data check suspects and nobody has decided on; or why there are none."""
    try:
        version = data.latest(store, name)
        rows = store.table(("suspects", name, version), partial(_suspected, store, name, version))
    except Absent as absent:
        return [], str(absent)
    said = newest(store, name)
    return [row for row in rows if _open(said.get(row["sha256"]))], None


def _suspected(store: Store, name: str, version: str) -> list[Document]:
    found = data.findings(store, name, version)
    return [
        {
            "sha256": photo.sha256,
            "asked": Asked.CHECK.value,
            "label": photo.label,
            "suggestion": one["suggestion"],
            "probability": None,
            "why": one["kind"],
            "origin": photo.path or "the data check",
        }
        for photo in data.rows(store, name, version)
        for one in found.get(photo.key, ())
        if one["kind"] == "suspect"
    ]


def _open(entry: Correction | None) -> bool:
    return entry is None or (entry.action is Action.KEEP and entry.why == reviews.TAKEN_BACK)


def _classes(store: Store, name: str) -> list[str]:
    try:
        return list(data.manifest(store, name, data.latest(store, name))["classes"])[:MOST_CLASSES]
    except Absent:
        return []
