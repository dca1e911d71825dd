"""Data page: versions of a data set, and what was found in them."""

from __future__ import annotations

import sys

from ml_pipeline.console.store import Absent, Store
from ml_pipeline.requests.types import Document

# Classes that a page lists, and names in "what changed".
_CLASSES, _NAMED = 2000, 20
# What a page shows of check.json, next to the classes that cannot be told apart.
_CHECKED = {"suspects": ("count", "share"), "near_duplicates": ("pairs", "across_classes", "across_splits")}


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
        address = store.address(f"{check_folder(store, name, version)}data_report.html")
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
        uri = f"{check_folder(store, name, version)}check.json"
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


def check_folder(store: Store, name: str, version: str) -> str:
    """Return the s3:// prefix of what the data check found.

    Raises:
        Absent: Nothing checked the version yet.
    """
    uri = store.settings.s3(f"datasets/{name}/versions/{version}/check/")
    embedders = store.brief(("check folder", uri), lambda: store.folders(uri))
    if not embedders:
        raise Absent("the data of this version was not checked yet: check_data does it")
    return f"{uri}{embedders[-1]}/"
