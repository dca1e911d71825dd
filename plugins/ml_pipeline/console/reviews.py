"""Review page, and the corrections of the Data page: answers of people, into the corrections log of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from ml_pipeline.console import data, photos
from ml_pipeline.console.store import Absent, Store
from ml_pipeline.dataset import corrections
from ml_pipeline.dataset.corrections import Action, Correction
from ml_pipeline.requests.types import Document
from ml_pipeline.watching import reviews

# Photos that a page of the queue holds; it asks again when they run out.
BATCH = 20
MOST_CLASSES = 2000


class Refused(ValueError):
    """A correction that cannot be made; the message names the fix."""


def newest(store: Store, name: str) -> dict[str, Correction]:
    """Return the corrections that count, by SHA-256."""
    s3, bucket = store.client("s3"), store.settings.bucket
    known: corrections.Known = store.lasting(("log", name), dict)
    return store.brief(("corrections", name), lambda: corrections.load(s3, bucket, name, known).newest())


def queue(store: Store, name: str, who: str) -> Document:
    """Return the next photos that wait for a person: of the traffic, and those whose label the data check suspects.

    Two reviewers get different orders, so that they seldom meet at the same photo.
    """
    waiting = reviews.waiting(store.client("s3"), store.settings.bucket, name)
    chosen = sorted(waiting, key=partial(_order, who))[:BATCH]
    asked = store.every(partial(_question, store, name), chosen)
    known, classes, missing = _known(store, name)
    rows = [_placed(row, known.get(row["sha256"])) for row in asked if row is not None]
    return {
        "name": name,
        "photos": rows,
        "waiting": len(waiting) - asked.count(None),
        "missing": missing,
        "classes": classes,
    }


def answer(store: Store, name: str, sha256: str, action: Action, label: str | None, who: str) -> None:
    """Write an answer.

    Raises:
        ReviewError: Another reviewer was faster, and has said something else.
    """
    known = class_name(label) if label else None
    reviews.answer(store.client("s3"), store.settings.bucket, name, sha256, action, known, who)
    store.forget(("corrections", name))


def undo(store: Store, name: str, sha256: str, who: str) -> None:
    """Take an answer of `who` back.

    Raises:
        ReviewError: There is none, or it is someone else's.
    """
    reviews.undo(store.client("s3"), store.settings.bucket, name, sha256, who)
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
    chosen = [row.sha256 for row in photos.rows(store, name, version) if _now(row, said) == label]
    return correct(store, name, chosen, Action.LABEL, to, who, f"class {label} became {to}")


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


def _now(photo: photos.Photo, said: dict[str, Correction]) -> str:
    entry = said.get(photo.sha256)
    return entry.label if entry and entry.label else photo.label


def _order(who: str, sha256: str) -> str:
    return hashlib.sha256(f"{who}:{sha256}".encode()).hexdigest()


def _placed(row: Document, photo: photos.Photo | None) -> Document:
    # Shards are written again without the photos that were forgotten; a question keeps the name of the first.
    if photo is None:
        return {**row, "label": None}
    return {**row, "label": photo.label, "shard": photo.shard}


def _question(store: Store, name: str, sha256: str) -> Document:
    uri = store.settings.s3(f"datasets/{name}/reviews/queue/{sha256}.json")

    def read() -> Document:
        try:
            found = reviews.Question(**store.json_at(uri))
        except TypeError as error:
            raise Absent(f"{uri} is damaged or of another release: {error}") from error
        return {
            "sha256": sha256,
            "suggestion": found.prediction,
            "probability": found.probability,
            "why": found.why,
            "origin": found.origin,
            "shard": found.shard,
        }

    return store.lasting(("question", name, sha256), read)


def _known(store: Store, name: str) -> tuple[dict[str, photos.Photo], list[str], str | None]:
    """Photos by SHA-256 and classes of the newest version; or why they are not known."""
    try:
        version = data.latest(store, name)
        classes = data.manifest(store, name, version)["classes"][:MOST_CLASSES]
        return store.table(("by hash", name, version), lambda: _by_hash(store, name, version)), classes, None
    except Absent as absent:
        return {}, [], str(absent)


def _by_hash(store: Store, name: str, version: str) -> dict[str, photos.Photo]:
    return {photo.sha256: photo for photo in photos.rows(store, name, version)}
