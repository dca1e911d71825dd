"""Photos to a data set version in S3: only what the newest version has not is uploaded."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_pipeline.aws import s3 as objects

if TYPE_CHECKING:
    from model_code.data.manifest import Manifest, PhotoRow, ShardPlan, ShardRow, Version
    from model_code.data.records import Fractions, Photo, Rejected
    from model_code.data.source import Candidate, Source

_EXAMPLES = 20
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class S3Folder:
    """Photos below an s3:// prefix, one folder per class: a `model_code.data.source.Source`.

    :param s3: a boto3 client.
    """

    s3: Any
    uri: str

    def describe(self) -> str:
        """The address, for messages."""
        return self.uri

    def candidates(self) -> Iterator[Candidate]:
        """Objects of all classes, in the order of their keys."""
        from model_code.data.source import Candidate, class_name, visible

        for key, size in self._listing():
            folders, _, _ = key.rpartition("/")
            if folders and all(map(visible, key.split("/"))):
                yield Candidate(key, class_name(key.split("/")[0]), size)

    def stray(self) -> list[str]:
        """Objects beside the class folders."""
        from model_code.data.source import visible

        return [key for key, _ in self._listing() if "/" not in key and visible(key)]

    def read(self, path: str) -> bytes:
        """The bytes of one object."""
        return objects.read(self.s3, self._prefix() + path)

    def _prefix(self) -> str:
        return self.uri.rstrip("/") + "/"

    def _listing(self) -> Iterator[tuple[str, int]]:
        bucket, prefix = objects.split_uri(self._prefix())
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):  # the console's "folders" are empty objects
                    yield item["Key"][len(prefix) :], item["Size"]


@dataclass(frozen=True)
class Place:
    """Where the versions of data set `name` lie: one bucket, one prefix.

    :param s3: a boto3 client.
    """

    s3: Any
    bucket: str
    name: str

    def uri(self, key: str) -> str:
        """s3:// URI of `key` below the data set."""
        return f"s3://{self.bucket}/{self.key(key)}"

    def key(self, key: str) -> str:
        """Key in the bucket of `key` below the data set."""
        return f"datasets/{self.name}/{key}"

    def put(self, key: str, body: str | bytes) -> int:
        """Write one small object; returns its size in bytes."""
        data = body.encode() if isinstance(body, str) else body
        self.s3.put_object(Bucket=self.bucket, Key=self.key(key), Body=data)
        return len(data)

    def newest(self) -> Version | None:
        """The newest version, or None for a new data set.

        :raises model_code.data.manifest.ManifestError: when it is damaged or from a newer release.
        """
        from model_code.data.manifest import Manifest, Version, read_photos_jsonl
        from model_code.data.shards import Split

        if not objects.exists(self.s3, self.uri("latest.json")):
            return None
        version = objects.read_json(self.s3, self.uri("latest.json"))["version"]
        folder = f"versions/{version}"
        retired = objects.read_json(self.s3, self.uri(f"{folder}/retired.json"))
        return Version(
            manifest=Manifest.from_json(objects.read(self.s3, self.uri(f"{folder}/manifest.json"))),
            photos=read_photos_jsonl(objects.read(self.s3, self.uri(f"{folder}/photos.jsonl"))),
            retired={sha256: Split(split) for sha256, split in retired.items()},
        )


def upload(
    s3: Any,
    bucket: str,
    name: str,
    data: str,
    *,
    seed: int = 0,
    fractions: Fractions | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make the version of data set `name` that holds the photos in `data`, and upload what is missing of it.

    Shards go first and the pointer to the newest version last, so a run that is cut off leaves no half
    version, and the next one uploads only the rest. Memory does not grow with the data set.

    :param s3: a boto3 client.
    :param data: a local folder or an s3:// prefix, with one folder per class.
    :param seed: shuffles the split of a new data set; an existing one keeps its splits.
    :param workers: threads that decode; default: this machine's cores.
    :param progress: called with (done, total, unit) now and then.
    :return: JSON-ready and small: name, version, parent, manifest_uri, classes, counts (photos per split),
        rejected (a number), rejected_examples, new_shards, uploaded_bytes, total_bytes, changed.
    :raises model_code.data.source.DatasetError: when no data set can be made of `data`; the message names the
        fix.
    """
    from model_code.data import manifest, records, scan, splits
    from model_code.data import source as sources

    check_name(name)
    if not data.strip():
        # As a path it would be the working directory.
        raise sources.DatasetError(
            "`data` is empty: give a folder or an s3:// prefix with one folder of photos per class; for scheduled "
            "runs, in ML_PIPELINE_DEFAULTS"
        )
    say = progress or (lambda done, total, unit: None)
    place = Place(s3, bucket, name)
    parent = place.newest()
    source: Source = S3Folder(s3, data) if data.startswith("s3://") else sources.Folder(Path(data))
    photos, rejected = scan.scan(source, workers, lambda done, total: say(done, total, "photos"))
    parts = fractions or records.Fractions()
    known = parent.known_splits() if parent else {}
    split_of, look_alikes = splits.assign(photos, known, seed, parts)
    plans = manifest.plan_shards(photos, split_of, seed, parent)
    shards, rows, uploaded, new = _upload_shards(place, source, plans, say)
    version = manifest.make_version(name, seed, parts, shards, rows, rejected + look_alikes, parent)
    changed = parent is None or version.manifest.version != parent.manifest.version
    if changed:
        uploaded += _publish(place, version)
    current = parent.manifest if parent and not changed else version.manifest
    return _result(place, current, rejected + look_alikes) | {
        "new_shards": new,
        "uploaded_bytes": uploaded,
        "changed": changed,
    }


def check_name(name: str) -> None:
    """Refuse a data set name that S3 keys, SageMaker names and URLs would not all take.

    :raises ValueError: with a name that works.
    """
    import re

    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", name):
        raise ValueError(
            f"{name!r} is no data set name: use 1 to 40 lower-case letters, digits and inner hyphens, "
            "like 'dog-breeds'"
        )


def _upload_shards(
    place: Place, source: Source, plans: list[ShardPlan], say: Progress
) -> tuple[list[ShardRow], list[PhotoRow], int, int]:
    """Rows of all shards and photos, the bytes uploaded, and how many shards were not there before."""
    from model_code.data.manifest import photo_rows

    shards: list[ShardRow] = []
    rows: list[PhotoRow] = []
    uploaded = new = 0
    with tempfile.TemporaryDirectory(prefix="ml-pipeline-shards-") as folder:
        for done, plan in enumerate(plans, start=1):
            shard = plan.kept
            if shard is None:
                shard, sent = _upload_shard(place, source, plan, Path(folder))
                uploaded += sent
                new += 1
            shards.append(shard)
            rows += photo_rows(plan, shard.sha256)
            say(done, len(plans), "shards")
    return shards, rows, uploaded, new


def _upload_shard(place: Place, source: Source, plan: ShardPlan, folder: Path) -> tuple[ShardRow, int]:
    from model_code.data import photos
    from model_code.data.manifest import ShardRow
    from model_code.data.shards import Sample, write_shard
    from model_code.process.parallel import ordered_map

    def sample(photo: Photo) -> Sample:
        data = source.read(photo.path)
        _check_unchanged(source, photo, data)
        kept, suffix = photos.stored(data)
        return Sample(photo.key, photo.label, kept, suffix)

    path = folder / "shard.tar"
    info = write_shard(path, plan.split, ordered_map(sample, plan.photos))
    key = f"shards/{info.sha256}.tar"
    row = ShardRow(info.sha256, place.key(key), plan.split, info.photos, info.bytes)
    sent = 0
    if not objects.exists(place.s3, place.uri(key)):
        place.s3.upload_file(str(path), place.bucket, place.key(key))
        sent = info.bytes
    path.unlink()
    return row, sent


def _check_unchanged(source: Source, photo: Photo, data: bytes) -> None:
    from model_code.data.source import DatasetError

    if hashlib.sha256(data).hexdigest() != photo.sha256:
        raise DatasetError(
            f"{photo.path} in {source.describe()} changed during the upload; run it again when it rests"
        )


def _publish(place: Place, version: Version) -> int:
    """Write the version's files, the manifest and the pointer last; returns their bytes."""
    from model_code.data.manifest import photos_jsonl
    from model_code.data.shards import Split

    folder = f"versions/{version.manifest.version}"
    size = place.put(f"{folder}/photos.jsonl", photos_jsonl(version.photos))
    size += place.put(f"{folder}/retired.json", json.dumps(dict(version.retired), sort_keys=True))
    for split in Split:
        listed = version.manifest.manifest_file(split, place.bucket)
        size += place.put(f"{folder}/{split.value}.manifest", json.dumps(listed))
    size += place.put(f"{folder}/manifest.json", version.manifest.to_json())
    return size + place.put("latest.json", json.dumps({"version": version.manifest.version}))


def _result(place: Place, listed: Manifest, rejected: list[Rejected]) -> dict[str, Any]:
    examples = sorted(rejected, key=lambda item: item.path)[:_EXAMPLES]
    return {
        "name": listed.name,
        "version": listed.version,
        "parent": listed.parent,
        "manifest_uri": place.uri(f"versions/{listed.version}/manifest.json"),
        "classes": list(listed.classes),
        "counts": {split: sum(found.values()) for split, found in listed.counts.items()},
        "rejected": len(rejected),
        "rejected_examples": [{"path": item.path, "reason": item.reason} for item in examples],
        "total_bytes": listed.total_bytes,
    }
