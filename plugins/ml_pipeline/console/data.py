"""Data page: versions of a data set, what was found in them, and their photos."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ml_pipeline.console import models, thumbnails
from ml_pipeline.console.store import Absent, Store
from ml_pipeline.requests.types import Document

PAGE = 60
# Classes that a page lists, and names in "what changed".
_CLASSES, _NAMED = 2000, 20
# What a page shows of check.json, next to the classes that cannot be told apart.
_CHECKED = {"suspects": ("count", "share"), "near_duplicates": ("pairs", "across_classes", "across_splits")}
# 100,000 lines of photos.jsonl have 25 MB.
_CHUNK = 2**20
_MOST_BYTES = 512 * 2**20


class Photo(NamedTuple):
    """A line of photos.jsonl, with the photo's path in the source where the version tells it."""

    key: str
    sha256: str
    label: str
    split: str
    path: str
    shard: str


@dataclass(frozen=True)
class Filter:
    """The photos that a page asks for; None and "" leave all.

    Attributes:
        found: A kind of finding: "suspect", "near_duplicate", "blurred", ...
        evaluation: Address of the predictions that `prediction` and `mistakes` speak of.
    """

    label: str | None = None
    split: str | None = None
    found: str | None = None
    prediction: str | None = None
    mistakes: bool = False
    evaluation: str = ""


def names(store: Store) -> list[str]:
    """Return the names of the data sets."""
    uri = store.settings.s3("datasets/")
    return store.brief("datasets", lambda: sorted(store.folders(uri)))


def versions(store: Store, name: str) -> list[Document]:
    """Return the versions of a data set, newest first, each with what changed against its parent."""
    folder = store.settings.s3(f"datasets/{name}/versions/")
    found = store.brief(("versions", name), lambda: store.folders(folder))
    if not found:
        raise Absent(f"there is no data set {name}")
    read = store.every(lambda version: _summary(store, name, version), found)
    known = {document["version"]: document for document in read if document is not None}
    rows = [_version(document, known.get(document["parent"])) for document in _newest_first(known)]
    missing = sorted(set(found) - set(known))
    return rows + [
        {"version": version, "missing": "its manifest.json is gone or damaged"} for version in missing
    ]


def _newest_first(known: dict[str, Document]) -> list[Document]:
    """Sort versions so that each comes before its parent; manifests have no time."""
    depth: dict[str, int] = {}
    for version in known:
        chain: list[str] = []
        at: str | None = version
        while at in known and at not in depth and at not in chain:
            chain.append(at)
            at = known[at]["parent"]
        start = depth.get(at or "", -1)
        for steps, link in enumerate(reversed(chain), start=1):
            depth[link] = start + steps
    return sorted(known.values(), key=lambda document: -depth[document["version"]])


def manifest(store: Store, name: str, version: str) -> Document:
    """Return a version's manifest.

    Raises:
        Absent: It is gone, damaged, or of a newer release.
    """
    uri = store.settings.s3(f"datasets/{name}/versions/{version}/manifest.json")
    return store.table(("manifest", uri), lambda: _manifest(store, uri))


def _manifest(store: Store, uri: str) -> Document:
    document: Document = store.json_at(uri)
    if not isinstance(document, dict) or not {"version", "classes", "counts"} <= set(document):
        raise Absent(f"{uri} is of another release")
    return document


def _summary(store: Store, name: str, version: str) -> Document:
    """Return of a manifest what the list of versions needs: of 100 versions with 10,000 classes all would be kept."""
    uri = store.settings.s3(f"datasets/{name}/versions/{version}/manifest.json")

    def read() -> Document:
        document = _manifest(store, uri)
        return {
            "version": document["version"],
            "parent": document.get("parent"),
            "classes": tuple(map(sys.intern, document["classes"])),
            "photos": {split: sum(counts.values()) for split, counts in document["counts"].items()},
            "rejected": len(document.get("rejected", [])),
        }

    return store.lasting(("summary", uri), read)


def _version(summary: Document, parent: Document | None) -> Document:
    photos = sum(summary["photos"].values())
    change = None
    if parent is not None:
        now, before = set(summary["classes"]), set(parent["classes"])
        change = {
            "photos": photos - sum(parent["photos"].values()),
            "added": sorted(now - before)[:_NAMED],
            "removed": sorted(before - now)[:_NAMED],
        }
    return {
        "version": summary["version"],
        "parent": summary["parent"],
        "photos": photos,
        "counts": summary["photos"],
        "classes": len(summary["classes"]),
        "rejected": summary["rejected"],
        "change": change,
        "missing": None,
    }


def latest(store: Store, name: str) -> str:
    """Return the newest version of a data set.

    Raises:
        Absent: There is none, or its name is not where this release keeps it.
    """
    uri = store.settings.s3(f"datasets/{name}/latest.json")
    try:
        return store.brief(("latest", name), lambda: str(store.json_at(uri)["version"]))
    except (KeyError, TypeError) as error:
        raise Absent(f"{uri} is of another release ({error})") from error


def details(store: Store, name: str, version: str) -> Document:
    """Return a version's classes, rejected files and the data report.

    Raises:
        Absent: The version is gone.
    """
    document = manifest(store, name, version)
    try:
        report, missing = check(store, name, version), None
        address = store.address(f"{_check_folder(store, name, version)}data_report.html")
    except Absent as absent:
        report, address, missing = None, None, str(absent)
    classes = [
        {"name": label, **{split: counts.get(label, 0) for split, counts in document["counts"].items()}}
        for label in document["classes"][:_CLASSES]
    ]
    return {
        **_version(_summary(store, name, version), None),
        "class_counts": classes,
        "rejects": document.get("rejected", [])[:500],
        "check": report,
        "report_url": address,
        "check_missing": missing,
    }


def check(store: Store, name: str, version: str) -> Document:
    """Return what a page shows of a version's check.json.

    Raises:
        Absent: Nothing checked it yet, or the file is damaged or of another release.
    """

    def read() -> Document:
        uri = f"{_check_folder(store, name, version)}check.json"
        found = store.json_at(uri)
        try:
            shown = {
                part: {field: found[part][field] for field in fields} for part, fields in _CHECKED.items()
            }
            pairs = found["cannot_be_told_apart"]
            unclear = [{"classes": pair["classes"], "accuracy": pair["accuracy"]} for pair in pairs]
            return {**shown, "cannot_be_told_apart": unclear}
        except (KeyError, TypeError) as error:
            raise Absent(f"{uri} is damaged or of another release: {error}") from error

    return store.lasting(("check", name, version), read)


def _check_folder(store: Store, name: str, version: str) -> str:
    uri = store.settings.s3(f"datasets/{name}/versions/{version}/check/")
    embedders = store.brief(("check folder", uri), lambda: store.folders(uri))
    if not embedders:
        raise Absent("the data of this version was not checked yet: check_data does it")
    return f"{uri}{embedders[-1]}/"


def photos(store: Store, name: str, version: str, wanted: Filter, offset: int = 0) -> Document:
    """Return a page of the photos that pass a filter, and their number.

    Raises:
        Absent: The list of photos, or what the filter needs, is gone.
    """
    answers = models.answers(store, wanted.evaluation) if wanted.evaluation else {}
    found = findings(store, name, version) if wanted.found else {}
    passes = _passes(wanted, found, answers)
    chosen = [photo for photo in rows(store, name, version) if passes(photo)]
    shown = chosen[offset : offset + PAGE]
    every = found or _findings_or_none(store, name, version)
    return {
        "total": len(chosen),
        "offset": offset,
        "page": PAGE,
        "thumbnails": thumbnails.has_any(store, name),
        "photos": [
            {
                **photo._asdict(),
                "findings": every.get(photo.key, []),
                "prediction": answers[photo.key].prediction if photo.key in answers else None,
                "probability": answers[photo.key].probability if photo.key in answers else None,
            }
            for photo in shown
        ],
    }


def _passes(
    wanted: Filter, found: dict[str, list[Document]], answers: dict[str, models.Said]
) -> Callable[[Photo], bool]:
    def passes(photo: Photo) -> bool:
        said = answers.get(photo.key)
        return (
            (not wanted.label or photo.label == wanted.label)
            and (not wanted.split or photo.split == wanted.split)
            and (not wanted.found or any(one["kind"] == wanted.found for one in found.get(photo.key, ())))
            and (not wanted.prediction or (said is not None and said.prediction == wanted.prediction))
            and (not wanted.mistakes or (said is not None and said.wrong))
        )

    return passes


def rows(store: Store, name: str, version: str) -> list[Photo]:
    """Return the photos of a version.

    Raises:
        Absent: photos.jsonl is gone, too large to show, damaged, or of another release.
    """
    folder = store.settings.s3(f"datasets/{name}/versions/{version}/")

    def read() -> list[Photo]:
        paths = _paths(store, f"{folder}looks.jsonl.gz")
        lines = store.stream(f"{folder}photos.jsonl", _MOST_BYTES).iter_lines(_CHUNK)
        try:
            return list(_photos(lines, paths))
        except (ValueError, KeyError, TypeError) as error:
            raise Absent(f"{folder}photos.jsonl is damaged or of another release: {error}") from error

    return store.table(("photos", folder), read)


def _photos(lines: Iterable[bytes], paths: Mapping[str, str]) -> Iterator[Photo]:
    interned: dict[str, str] = {}
    for line in lines:
        row = json.loads(line)
        label, split, sha256, shard = row["class"], row["split"], row["sha256"], row["shard"]
        yield Photo(
            row["key"],
            sha256,
            interned.setdefault(label, label),
            interned.setdefault(split, split),
            paths.get(sha256, ""),
            interned.setdefault(shard, shard),
        )


def _paths(store: Store, uri: str) -> dict[str, str]:
    """Paths by SHA-256, of copies the first; none for a version of an earlier release, or where they are damaged."""
    paths: dict[str, str] = {}
    try:
        with gzip.open(io.BytesIO(store.bytes_at(uri, _MOST_BYTES))) as lines:
            for fields in map(json.loads, lines):
                if "sha256" in fields:
                    # A name that is no UTF-8 has surrogates, which no answer can carry.
                    path = fields["path"].encode(errors="replace").decode()
                    paths.setdefault(fields["sha256"], path)
    except (Absent, OSError, EOFError, zlib.error, ValueError, KeyError):
        return {}
    return paths


def with_pictures(store: Store, name: str, version: str, photos: list[Document]) -> list[Document]:
    """Return photos that are known by key alone with SHA-256, path and shard, where the version has them."""
    try:
        known = {row.key: row for row in rows(store, name, version)} if photos else {}
    except Absent:
        known = {}
    nothing = {"sha256": None, "path": "", "shard": ""}
    return [
        {
            **photo,
            **{field: getattr(known.get(photo["key"]), field, empty) for field, empty in nothing.items()},
        }
        for photo in photos
    ]


def findings(store: Store, name: str, version: str) -> dict[str, list[Document]]:
    """Return what the data check found, by the photo's key.

    Raises:
        Absent: Nothing checked the version yet, or the file is damaged or of another release.
    """

    def read() -> dict[str, list[Document]]:
        uri = f"{_check_folder(store, name, version)}findings.jsonl"
        text = store.bytes_at(uri)
        try:
            return {row["key"]: row["findings"] for row in map(json.loads, text.splitlines())}
        except (ValueError, KeyError, TypeError) as error:
            raise Absent(f"{uri} is damaged or of another release: {error}") from error

    return store.table(("findings", name, version), read)


def _findings_or_none(store: Store, name: str, version: str) -> dict[str, list[Document]]:
    try:
        return findings(store, name, version)
    except Absent:
        return {}
