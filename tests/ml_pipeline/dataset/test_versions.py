"""Data sets that change: nothing gets stuck, nothing is read twice, nothing is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, IncompleteReadError, ReadTimeoutError

from ml_pipeline.aws import transfers
from ml_pipeline.aws.downloads import Downloads
from ml_pipeline.aws.transfers import Transfers
from ml_pipeline.dataset import sources
from ml_pipeline.dataset.place import ConcurrentUpload, Place
from ml_pipeline.dataset.upload import upload
from model_code.data.manifest import ManifestError
from model_code.data.shards import Split
from model_code.data.source import Candidate, DatasetError, Folder
from model_code.data.versions.changes import ChangeKind
from tests.ml_pipeline.dataset.stores import BUCKET, Store, bucket, sha, shapes
from tests.model_code.photo_files import encoded, folder_of_photos, photo, picture


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with bucket() as s3:
        yield Store(s3)


def make(store: Store, files: dict[str, bytes], **options: Any) -> Any:
    return upload(store.s3, BUCKET, "pets", store.source("pets", files), **options)


def only(files: dict[str, bytes], rows: dict[str, Any], label: str, split: str) -> str:
    """The path of the one photo of a class in a split."""
    (path,) = [
        path for path, data in files.items() if path.startswith(label) and rows[sha(data)]["split"] == split
    ]
    return path


@pytest.mark.parametrize("fresh", [0, 3], ids=["from validation", "from new photos"])
def test_the_only_test_photo_of_a_class_is_replaced(store: Store, fresh: int) -> None:
    files = shapes()
    first = make(store, files)
    gone = only(files, store.rows(first), "circle", "test")
    left = {path: data for path, data in files.items() if path != gone}
    left |= {f"circle/new{n}.jpg": photo(700 + n) for n in range(fresh)}
    second = make(store, left)
    rows, manifest = store.rows(second), store.manifest(second)
    assert manifest.counts["test"] == {"circle": 1, "square": 1}
    chosen = only(left, rows, "circle", "test")
    moves = {move.key: (move.before, move.after, move.until) for move in manifest.moves}
    if fresh:
        assert moves == {} and "new" in chosen  # noqa: PT018
    else:
        key = rows[sha(left[chosen])]["key"]
        assert moves == {key: (Split.VALID, Split.TEST, first["version"])}
        assert manifest.seen_by(first["version"]) == {key}
        assert manifest.seen_by(second["version"]) == frozenset()
    third = make(store, {**left, "square/more.jpg": photo(800)})
    assert store.manifest(third).seen_by(first["version"]) == manifest.seen_by(first["version"])


def test_a_class_without_validation_gives_a_training_photo_to_the_test(store: Store) -> None:
    files = shapes()
    rows = store.rows(make(store, files))
    gone = {only(files, rows, "circle", split) for split in ("test", "valid")}
    second = make(store, {path: data for path, data in files.items() if path not in gone})
    manifest = store.manifest(second)
    assert [(move.before, move.after) for move in manifest.moves] == [(Split.TRAIN, Split.TEST)]
    assert manifest.counts["test"]["circle"] == 1


def test_a_relabelled_test_photo_leaves_neither_class_without(store: Store) -> None:
    files = shapes()
    rows = store.rows(make(store, files))
    moved = only(files, rows, "circle", "test")
    data = files.pop(moved)
    second = make(store, {**files, "square/moved.jpg": data})
    assert set(store.manifest(second).counts["test"].values()) == {1, 2}
    assert second["changes"] == ["1 photos of 'circle' are 'square' now"]


def test_renamed_and_merged_classes_are_recognized(store: Store) -> None:
    files = shapes() | {f"star/{n}.jpg": photo(300 + n) for n in range(8)}
    first = make(store, files)
    renamed = {path.replace("circle/", "disc/"): data for path, data in files.items()}
    second = make(store, renamed)
    (change,) = store.manifest(second).changes
    assert (change.kind, change.before, change.after, change.photos) == (
        ChangeKind.RENAMED,
        "circle",
        "disc",
        8,
    )
    assert second["read"] == 8
    before, after = store.rows(first), store.rows(second)
    assert {name: row["split"] for name, row in before.items()} == {n: r["split"] for n, r in after.items()}
    merged = {path.replace("star/", "square/s"): data for path, data in renamed.items()}
    assert make(store, merged)["changes"] == ["class 'star' was merged into 'square' (8 photos)"]


def test_an_unchanged_source_is_recognized_without_reading_a_photo(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = shapes()
    first = make(store, files)
    assert first["read"] == 16
    read: list[str] = []
    plain = Transfers.read
    monkeypatch.setattr(Transfers, "read", lambda self, uri: read.append(uri) or plain(self, uri))
    again = upload(store.s3, BUCKET, "pets", f"s3://{BUCKET}/in/pets")
    assert (again["version"], again["read"], again["changed"], read) == (first["version"], 0, False, [])
    third = make(store, {**files, "circle/new.jpg": photo(900)})
    assert (third["read"], len(read)) == (1, 1)
    forced = upload(store.s3, BUCKET, "pets", f"s3://{BUCKET}/in/pets", force=True)
    assert (forced["read"], forced["version"]) == (17, third["version"])


def test_double_slashes_do_not_make_a_class(store: Store) -> None:
    files = shapes()
    files |= {f"/circle/extra{n}.jpg": photo(400 + n) for n in range(4)} | {"square//deep//e.jpg": photo(450)}
    result = make(store, files)
    assert result["classes"] == ["circle", "square"]
    assert sum(result["counts"].values()) == 21


def test_markers_of_folders_in_s3(store: Store) -> None:
    files = shapes()
    make(store, {**files, "circle/": b"", "_$folder$": b"", "circle_$folder$": b"", "lost+found/": b""})
    with pytest.raises(DatasetError, match=r"class 'star' \(0\).*remove its folder"):
        make(store, {**files, "star/": b""})


def test_the_same_picture_in_two_classes_is_left_out_by_name(store: Store) -> None:
    image = picture(9, 160, 160)
    files = shapes()
    files |= {
        "circle/one.jpg": encoded(image),
        "square/two.jpg": encoded(image.resize((150, 150)), quality=60),
    }
    result = make(store, files)
    assert {item["path"] for item in result["rejected_examples"]} == {"circle/one.jpg", "square/two.jpg"}
    kept = make(store, files, group_lookalikes=False)
    assert kept["rejected"] == 0


def overtaken(monkeypatch: pytest.MonkeyPatch, store: Store, times: int) -> list[Any]:
    """Let another upload finish first, `times` times; what they made."""
    publish, others = Place.publish, []

    def slow(place: Place, version: Any, tag: str | None) -> int:
        if len(others) < times:
            others.append(None)
            monkeypatch.setattr(Place, "publish", publish)
            theirs = store.source("theirs", {**shapes(), "circle/theirs.jpg": photo(900 + len(others))})
            others[-1] = upload(store.s3, BUCKET, "pets", theirs)
            monkeypatch.setattr(Place, "publish", slow)
        return publish(place, version, tag)

    monkeypatch.setattr(Place, "publish", slow)
    return others


def test_of_two_uploads_at_once_the_later_goes_on_from_the_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = overtaken(monkeypatch, store, 1)
    result = make(store, {**shapes(), "circle/ours.jpg": photo(800)})
    assert result["parent"] == others[0]["version"]
    assert (sum(result["counts"].values()), result["read"]) == (17, 1)


def test_an_upload_that_is_overtaken_again_and_again_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    overtaken(monkeypatch, store, 5)
    with pytest.raises(ConcurrentUpload, match="run this one again"):
        make(store, {**shapes(), "circle/ours.jpg": photo(800)})


def test_an_object_that_vanishes_is_left_out_with_a_reason(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Losing(sources.S3Folder):
        def candidates(self) -> Iterator[Candidate]:
            yield from super().candidates()
            self.s3.delete_object(Bucket=BUCKET, Key="in/pets/circle/3.jpg")

    uri = store.source("pets", shapes())
    monkeypatch.setattr(sources, "source_of", Losing)
    result = upload(store.s3, BUCKET, "pets", uri)
    assert result["rejected_examples"] == [
        {"path": "circle/3.jpg", "reason": f"{uri}circle/3.jpg vanished after it was listed"}
    ]
    monkeypatch.undo()
    again = make(store, shapes())  # with the same ETag
    assert (again["read"], again["rejected"], sum(again["counts"].values())) == (1, 0, 16)


def test_a_file_that_could_not_be_read_is_read_again(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read = str(folder_of_photos(tmp_path, {"cat": 8, "dog": 8})), Folder.read

    def denied(source: Folder, path: str) -> bytes:
        if path == "cat/00003.jpg":
            raise PermissionError(13, "Permission denied")
        return read(source, path)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "read", denied)
        first = upload(store.s3, BUCKET, "pets", folder)
    assert first["rejected_examples"] == [{"path": "cat/00003.jpg", "reason": "cannot be read"}]
    again = upload(store.s3, BUCKET, "pets", folder)
    assert (again["read"], again["rejected"], sum(again["counts"].values())) == (1, 0, 16)


def throttled(code: str = "SlowDown") -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject")


def broken() -> list[Exception]:
    """Errors of botocore where a connection breaks; some are OSErrors, as a missing file is."""
    at = {"endpoint_url": "https://s3.example", "error": "reset"}
    return [
        ReadTimeoutError(**at),
        EndpointConnectionError(**at),
        IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ]


@pytest.mark.parametrize("ends", [True, False])
def test_a_network_that_breaks_costs_no_photo(
    store: Store, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    uri, plain, left = store.source("pets", shapes()), Downloads.read, broken()
    monkeypatch.setattr(transfers, "time", SimpleNamespace(sleep=lambda seconds: None))

    def read(self: Downloads, address: str) -> bytes:
        if address.endswith("circle/1.jpg") and left:
            raise left.pop() if ends else left[0]
        return plain(self, address)

    monkeypatch.setattr(Downloads, "read", read)
    if ends:
        made = upload(store.s3, BUCKET, "pets", uri)
        assert (left, made["rejected"], sum(made["counts"].values())) == ([], 0, 16)
    else:
        with pytest.raises(DatasetError, match=r"circle/1\.jpg cannot be read: Read timeout.*; run it again"):
            upload(store.s3, BUCKET, "pets", uri)
        assert versions_of(store) == []


def versions_of(store: Store) -> list[str]:
    """The objects by which others see a version."""
    found = store.s3.list_objects_v2(Bucket=BUCKET, Prefix="datasets/pets/").get("Contents", [])
    return [
        item["Key"] for item in found if "/shards/" not in item["Key"] and "/thumbnails/" not in item["Key"]
    ]


@pytest.mark.parametrize(
    ("owner", "method", "calls"), [(Downloads, "read", 5), (Place, "put_file", 3), (Place, "swap", 0)]
)
def test_a_token_that_expires_on_the_way_leaves_no_half_version(
    store: Store, monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, calls: int
) -> None:
    uri = store.source("pets", shapes())
    whole = upload(store.s3, BUCKET, "whole", uri)
    monkeypatch.setattr(transfers, "time", SimpleNamespace(sleep=lambda seconds: None))
    plain, left = getattr(owner, method), iter(range(calls))

    def until_it_expires(*given: Any) -> Any:
        if next(left, None) is None:
            raise throttled("ExpiredToken")
        return plain(*given)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, until_it_expires)
        with pytest.raises(ClientError, match="ExpiredToken"):
            upload(store.s3, BUCKET, "pets", uri)
    assert not any(key.endswith("latest.json") for key in versions_of(store))
    assert upload(store.s3, BUCKET, "pets", uri)["version"] == whole["version"]


def test_a_version_of_a_newer_release_is_left_alone(store: Store) -> None:
    first = make(store, shapes())
    key = first["manifest_uri"].removeprefix(f"s3://{BUCKET}/")
    newer = json.dumps({**json.loads(store.read(first["manifest_uri"])), "schema_version": 99})
    store.s3.put_object(Bucket=BUCKET, Key=key, Body=newer.encode())
    before = versions_of(store)
    with pytest.raises(ManifestError, match=r"schema_version 99.*update"):
        make(store, shapes(9))
    assert versions_of(store) == before
    assert store.read(first["manifest_uri"]) == newer.encode()


def test_a_job_reads_photos_of_its_own_region_only(store: Store) -> None:
    place = {"LocationConstraint": "eu-west-1"}
    store.s3.create_bucket(Bucket="far", CreateBucketConfiguration=place)
    sources.check_region(store.s3, "s3://far/photos", "eu-west-1")
    sources.check_region(store.s3, "s3://missing/photos", "eu-west-1")
    with pytest.raises(
        DatasetError, match=r"far is in eu-west-1, and jobs in us-east-1.*prepare_instance_type=worker"
    ):
        sources.check_region(store.s3, "s3://far/photos", "us-east-1")


@pytest.mark.parametrize("fits", [None, 10])
def test_a_full_disk_of_the_worker_costs_no_photo(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: int | None
) -> None:
    spooled = sources.Spooled(sources.S3Folder(store.s3, store.source("pets", shapes())), tmp_path)

    def full(*_: Any) -> int:
        if fits:
            return fits
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert spooled.read("circle/1.jpg") == shapes()["circle/1.jpg"]
    assert spooled.read("circle/1.jpg") == shapes()["circle/1.jpg"]
    spooled.close()


def test_a_table_in_s3(store: Store) -> None:
    files = shapes()
    uri = store.source("pets", files)
    lines = [
        f"{uri}{path},{path.split('/')[0]}" if n % 2 else f"pets/{path},{path.split('/')[0]}"
        for n, path in enumerate(files)
    ]
    table = "\n".join(["source,label", *lines, "pets/circle/gone.jpg,circle"]).encode()
    store.s3.put_object(Bucket=BUCKET, Key="in/labels.csv", Body=table)
    address = f"s3://{BUCKET}/in/labels.csv"
    result: Any = upload(store.s3, BUCKET, "pets", address)
    assert (sum(result["counts"].values()), result["read"]) == (16, 17)
    assert [item["path"] for item in result["rejected_examples"]] == ["pets/circle/gone.jpg"]
    again: Any = upload(store.s3, BUCKET, "pets", address)
    assert (again["changed"], again["read"]) == (False, 1)
    with pytest.raises(DatasetError, match="does not exist"):
        upload(store.s3, BUCKET, "pets", f"s3://{BUCKET}/in/nowhere.csv")
