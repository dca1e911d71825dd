"""Versions: named by what they list, growing shard by shard."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest

import model_code
from model_code.data.manifest import (
    Manifest,
    ManifestError,
    PhotoRow,
    ShardRow,
    read_photos_jsonl,
)
from model_code.data.records import Fractions, Photo, Rejected
from model_code.data.shards import Split
from model_code.data.splits import assign
from model_code.data.versions.plan import Version, make_version, plan_shards, rows_of
from model_code.data.versions.rows import Rows

SCHEMAS = Path(model_code.__file__).parent / "schemas"


def photos_of(label: str, count: int, first: int = 0) -> list[Photo]:
    return [
        Photo(f"{label}/{n}.jpg", label, f"{label}-{n}".encode().hex().ljust(64, "0"), n << 32, 20_000, "jpg")
        for n in range(first, first + count)
    ]


def version_of(
    photos: list[Photo], parent: Version | None = None, name: str = "pets", seed: int = 0
) -> Version:
    """A version whose shards are named after their photos instead of being written."""
    import hashlib

    known = parent.known_splits if parent else {}
    splits, _ = assign(
        [Photo(p.path, p.label, p.sha256, None, p.bytes, p.suffix) for p in photos], known, seed
    )
    shards = []
    plans = plan_shards(photos, splits, seed, parent)
    for plan in plans:
        text = plan.split + "".join(photo.sha256 + photo.label for photo in plan.photos)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        row = ShardRow(sha256, f"datasets/{name}/shards/{sha256}.tar", plan.split, len(plan.photos), 20_000)
        shards.append(plan.kept or row)
    rows = rows_of(plans, [shard.sha256 for shard in shards])
    return make_version(name, seed, Fractions(), shards, rows, [Rejected("x.jpg", "empty file")], parent)


PETS = photos_of("cat", 40) + photos_of("dog", 40)


def test_manifest_and_photos_follow_their_schemas() -> None:
    version = version_of(PETS)
    schema = json.loads((SCHEMAS / "manifest.schema.json").read_text())
    jsonschema.validate(json.loads(version.manifest.to_json()), schema)
    line = json.loads((SCHEMAS / "photos.schema.json").read_text())
    for row in version.photos:
        jsonschema.validate(json.loads(row.to_line()), line)


def test_what_is_written_is_read() -> None:
    version = version_of(PETS)
    assert Manifest.from_json(version.manifest.to_json()) == version.manifest
    written = b"".join(version.photos.parts())
    assert written.decode().splitlines() == [row.to_line() for row in version.photos]
    assert Rows.read(written.splitlines()) == version.photos
    assert read_photos_jsonl(written) == tuple(version.photos)
    assert version.manifest.counts["train"] == {"cat": 32, "dog": 32}


def test_the_version_is_the_hash_of_what_is_listed() -> None:
    version = version_of(PETS).manifest.version
    assert version_of(PETS[::-1]).manifest.version == version
    assert version_of(PETS, name="other").manifest.version == version
    assert version_of(PETS, seed=1).manifest.version != version
    assert version_of(PETS[1:]).manifest.version != version


def test_the_same_photos_again_change_nothing() -> None:
    version = version_of(PETS)
    again = version_of(PETS, parent=version)
    assert again.manifest.version == version.manifest.version
    assert again.photos == version.photos


def test_new_photos_go_to_new_shards() -> None:
    version = version_of(PETS)
    grown = version_of(PETS + photos_of("cat", 3, first=100), parent=version)
    old = {shard.sha256 for shard in version.manifest.shards}
    new = [shard for shard in grown.manifest.shards if shard.sha256 not in old]
    assert old < {shard.sha256 for shard in grown.manifest.shards}
    assert sum(shard.photos for shard in new) == 3
    assert grown.manifest.parent == version.manifest.version


def test_a_removal_rewrites_its_shard_only() -> None:
    version = version_of(PETS)
    gone = PETS[0].sha256
    shrunk = version_of(PETS[1:], parent=version)
    touched = next(row.shard for row in version.photos if row.sha256 == gone)
    kept = {shard.sha256 for shard in version.manifest.shards} - {touched}
    assert kept < {shard.sha256 for shard in shrunk.manifest.shards}
    assert len(shrunk.manifest.shards) == len(version.manifest.shards)
    assert all(row.sha256 != gone for row in shrunk.photos)


def test_a_photo_that_changes_class_keeps_its_split() -> None:
    version = version_of(PETS)
    moved = Photo("dog/m.jpg", "dog", PETS[0].sha256, None, 20_000, "jpg")
    after = version_of([moved, *PETS[1:]], parent=version)
    before_row = next(row for row in version.photos if row.sha256 == moved.sha256)
    after_row = next(row for row in after.photos if row.sha256 == moved.sha256)
    assert (after_row.label, after_row.split) == ("dog", before_row.split)
    assert after_row.shard != before_row.shard


def test_a_photo_that_comes_back_returns_to_its_split() -> None:
    version = version_of(PETS)
    tested = {row.sha256 for row in version.photos if row.split is Split.TEST}
    without = version_of([photo for photo in PETS if photo.sha256 not in tested][:-1] + photos_of("cat", 12, 200)
                         + photos_of("dog", 12, 200), parent=version)  # fmt: skip
    assert set(without.retired) >= tested
    back = version_of(PETS + photos_of("cat", 12, 200) + photos_of("dog", 12, 200), parent=without)
    assert {row.sha256 for row in back.photos if row.split is Split.TEST} >= tested


def test_a_rejected_file_of_any_name_can_be_listed() -> None:
    rejected = Rejected(os.fsdecode(b"cat/caf\xe9.jpg"), "empty file")
    text = make_version("pets", 0, Fractions(), [], [], [rejected], None).manifest.to_json()
    assert Manifest.from_json(text.encode()).rejected[0].path == "cat/caf\\udce9.jpg"


def test_manifest_files_name_the_shards_of_a_split() -> None:
    manifest = version_of(PETS).manifest
    listed = manifest.manifest_file(Split.TEST, "bucket")
    assert listed[0] == {"prefix": "s3://bucket/datasets/pets/shards/"}
    assert listed[1:] == [f"{shard.sha256}.tar" for shard in manifest.shards if shard.split is Split.TEST]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:100], "damaged"),
        (lambda text: text.replace('"schema_version": 2', '"schema_version": 9'), "schema_version 9.*update"),
        (lambda text: text.replace('"seed": 0', '"seed": 5'), "not those of version"),
    ],
)
def test_damaged_and_newer_manifests_are_refused(change: object, message: str) -> None:
    text = version_of(PETS).manifest.to_json()
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(change(text))  # type: ignore[operator]


def test_damaged_lines_are_named() -> None:
    with pytest.raises(ManifestError, match=r"photos\.jsonl"):
        PhotoRow.from_line('{"key": "a"}')
