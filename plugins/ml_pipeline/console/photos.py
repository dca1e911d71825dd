"""The photos of a data set version, a page of them at a time."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ml_pipeline.console import evaluations, thumbnails
from ml_pipeline.console.data import check_folder
from ml_pipeline.console.store import Absent, Store
from ml_pipeline.requests.types import Document

PAGE = 60
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


def page(store: Store, name: str, version: str, wanted: Filter, offset: int = 0) -> Document:
    """Return a page of the photos that pass a filter, and their number.

    Raises:
        Absent: The list of photos, or what the filter needs, is gone.
    """
    answers = evaluations.answers(store, wanted.evaluation) if wanted.evaluation else {}
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
    wanted: Filter, found: dict[str, list[Document]], answers: dict[str, evaluations.Said]
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
        uri = f"{check_folder(store, name, version)}findings.jsonl"
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
