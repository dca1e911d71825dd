"""Take photos out of the bucket: every object, every version of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ml_pipeline.aws.clients import Client
from ml_pipeline.dataset.place import Place
from ml_pipeline.watching.forget.traces import Traces, names_of, reshard, without
from model_code.data.manifest import Manifest, ShardRow
from model_code.data.records import hidden
from model_code.data.shards import ShardInfo
from model_code.data.versions import thumbnails
from model_code.data.versions.plan import Version, make_version
from model_code.data.versions.rows import Rows

# Neither photos nor names of photos: pretrained weights, code, and the list that keeps photos out.
_CLEAN = ("weights/", "code/")
# Tensors: nothing to look for.
_OPAQUE = (".safetensors", ".onnx")


@dataclass
class Swept:
    """Result of a sweep.

    Attributes:
        versions: Data set versions that held a photo, `<name>/<version>`; they are gone.
        rewritten, deleted: Keys.
    """

    versions: set[str] = field(default_factory=set)
    rewritten: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Entry:
    key: str
    version: str
    latest: bool


def forget(s3: Client, bucket: str, photos: frozenset[str]) -> Swept:
    """Take photos out of all data sets, captures, models and pages of a bucket; a second time it finds nothing.

    First every data set's list keeps the photos out, then its newest version is made again without them, then traces
    go. After a kill in between, run it again: it finds the rest. What says where a photo was goes last.

    Args:
        s3: boto3 client of S3, with the rights of the role of infra/forget.yaml.
        bucket: Name of the project's bucket.
        photos: SHA-256 of each photo's bytes.
    """
    traces, swept = Traces(photos), Swept()
    doomed: set[str] = set()
    clean: set[str] = set()
    for name in sorted(_datasets(s3, bucket)):
        for photo in photos:
            s3.put_object(Bucket=bucket, Key=f"datasets/{name}/forgotten/{hidden(photo)}", Body=b"")
        held, others = _make_again(Place(s3, bucket, name), traces, swept)
        doomed |= held
        clean |= {f"datasets/{name}/shards/{shard}.tar" for shard in others}
    # Twice: captures tell InferenceIds and staged photos their names, by which other objects know them.
    for _ in range(2):
        last: list[_Entry] = []
        for entry in _entries(s3, bucket):
            if _of_versions(entry.key, swept.versions):
                last.append(entry)
            elif any(shard in entry.key for shard in doomed):
                _delete(s3, bucket, entry, swept)
            elif not (entry.key in clean or entry.key.startswith(_CLEAN) or entry.key.endswith(_OPAQUE)):
                _clean(s3, bucket, entry, traces, swept)
        traces.names |= names_of(swept.deleted)
    for entry in sorted(last, key=lambda entry: entry.key.endswith("/photos.jsonl")):
        _delete(s3, bucket, entry, swept)
    return swept


def _make_again(place: Place, traces: Traces, swept: Swept) -> tuple[set[str], set[str]]:
    """Make the newest version again without the photos.

    Returns:
        The shards of any version that hold one, and those that hold none. An upload that was cut off may leave others.
    """
    doomed: set[str] = set()
    named: set[str] = set()
    newest, tag = place.newest()
    for version in _versions(place):
        found = place.open(f"versions/{version}/photos.jsonl")
        rows = Rows.read(found or ())
        if held := {row.shard for row in rows if row.sha256 in traces.photos}:
            swept.versions.add(f"{place.name}/{version}")
            doomed |= held
        named.update(rows.shard_names)
    clean = named - doomed
    if newest is None or f"{place.name}/{newest.manifest.version}" not in swept.versions:
        return doomed, clean
    shards = {
        row.sha256: _without(place, row, traces) if row.sha256 in doomed else row
        for row in newest.manifest.shards
    }
    left = [
        replace(row, shard=shard.sha256)
        for row in newest.photos
        if row.sha256 not in traces.photos and (shard := shards[row.shard])
    ]
    listed: Manifest = newest.manifest
    made = make_version(
        place.name, listed.seed, listed.fractions, [row for row in shards.values() if row], left, listed.rejected,
        newest, listed.corrected,
    )  # fmt: skip
    retired = {photo: split for photo, split in made.retired.items() if photo not in traces.photos}
    made = Version(made.manifest, made.photos, retired)
    known = place.looks(newest)
    place.keep_looks(
        made,
        known,
        [row for row in range(len(known)) if getattr(known.found(row), "sha256", "") not in traces.photos],
    )
    place.publish(made, tag)
    return doomed, clean


def _without(place: Place, row: ShardRow, traces: Traces) -> ShardRow | None:
    found = place.read(f"shards/{row.sha256}.tar")
    if found is None:
        return None

    def store(info: ShardInfo, path: Path) -> None:
        pictures = place.read(thumbnails.key(row.sha256))
        left = thumbnails.without(pictures[0], traces.photos) if pictures else None
        if left is not None:
            place.put(thumbnails.key(info.sha256), left)
        place.put_file(f"shards/{info.sha256}.tar", path)

    info = reshard(found[0], traces, store)
    if info is None:
        return None
    return ShardRow(info.sha256, place.key(f"shards/{info.sha256}.tar"), row.split, info.photos, info.bytes)


def _clean(s3: Client, bucket: str, entry: _Entry, traces: Traces, swept: Swept) -> None:
    body: bytes = s3.get_object(Bucket=bucket, Key=entry.key, VersionId=entry.version)["Body"].read()
    left = without(entry.key, body, traces)
    if left == body:
        return
    if left is not None and entry.latest:
        written = s3.put_object(Bucket=bucket, Key=entry.key, Body=left)
        swept.rewritten.add(entry.key)
        if written.get("VersionId", "null") == entry.version:
            return  # a bucket without versions: it is overwritten
    _delete(s3, bucket, entry, swept)


def _delete(s3: Client, bucket: str, entry: _Entry, swept: Swept) -> None:
    s3.delete_object(Bucket=bucket, Key=entry.key, VersionId=entry.version)
    if entry.key not in swept.rewritten:
        swept.deleted.add(entry.key)


def _entries(s3: Client, bucket: str) -> Iterator[_Entry]:
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for item in page.get("Versions", []):
            yield _Entry(item["Key"], item["VersionId"], item["IsLatest"])


def _datasets(s3: Client, bucket: str) -> set[str]:
    from ml_pipeline.aws import s3 as objects

    return set(objects.folders(s3, f"s3://{bucket}/datasets/"))


def _versions(place: Place) -> list[str]:
    from ml_pipeline.aws import s3 as objects

    return sorted(objects.folders(place.s3, place.uri("versions/")))


def _of_versions(key: str, versions: set[str]) -> bool:
    """Tell whether an object belongs to a data set version, or lists its shards or embeddings."""
    parts = key.split("/")
    if parts[0] == "embeddings" and len(parts) > 3 and parts[2] == "versions":
        return any(version.endswith(f"/{parts[3]}") for version in versions)
    return parts[0] == "datasets" and parts[2:3] == ["versions"] and f"{parts[1]}/{parts[3]}" in versions
