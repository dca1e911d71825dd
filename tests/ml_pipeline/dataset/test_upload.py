"""Uploads: what is new and nothing else, from a folder or from S3, and never half a version."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from ml_pipeline.dataset.place import Place
from ml_pipeline.dataset.upload import upload
from model_code.data.manifest import Manifest
from model_code.data.shards import Split, read_shard
from model_code.data.source import DatasetError
from tests.model_code.photo_files import folder_of_photos, photo

BUCKET = "photos"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        client = boto3.client("s3", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return folder_of_photos(tmp_path / "pets", {"cat": 30, "dog": 30})


def keys(s3: Any, prefix: str = "") -> set[str]:
    return {item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])}


def text(s3: Any, key: str) -> str:
    return str(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode())


def manifest_of(s3: Any, result: Any) -> Manifest:
    return Manifest.from_json(text(s3, result["manifest_uri"].removeprefix(f"s3://{BUCKET}/")))


def splits_of(s3: Any, result: Any) -> dict[str, str]:
    lines = text(s3, f"datasets/{result['name']}/versions/{result['version']}/photos.jsonl").splitlines()
    return {row["sha256"]: row["split"] for row in map(json.loads, lines)}


def test_a_first_upload(s3: Any, pets: Path, tmp_path: Path) -> None:
    said: list[tuple[int, int, str]] = []
    result = upload(s3, BUCKET, "pets", str(pets), progress=lambda *step: said.append(step))
    assert result["counts"] == {"train": 48, "valid": 6, "test": 6}
    assert result["classes"] == ["cat", "dog"]
    assert (result["parent"], result["changed"], result["new_shards"], result["rejected"]) == (
        None,
        True,
        3,
        0,
    )
    assert (60, 60, "photos") in said
    assert said[-1] == (3, 3, "shards")
    folder = f"datasets/pets/versions/{result['version']}"
    files = (
        "manifest.json",
        "looks.jsonl.gz",
        "photos.jsonl",
        "retired.json",
        "train.manifest",
        "valid.manifest",
        "test.manifest",
    )
    assert keys(s3, folder) == {f"{folder}/{name}" for name in files}
    manifest = manifest_of(s3, result)
    assert keys(s3, "datasets/pets/shards/") == {shard.key for shard in manifest.shards}
    listed = json.loads(text(s3, f"{folder}/test.manifest"))
    (test,) = [shard for shard in manifest.shards if shard.split is Split.TEST]
    assert listed == [{"prefix": f"s3://{BUCKET}/datasets/pets/shards/"}, f"{test.sha256}.tar"]
    s3.download_file(BUCKET, test.key, str(tmp_path / "test.tar"))
    samples = list(read_shard(tmp_path / "test.tar"))
    assert {sample.label for sample in samples} == {"cat", "dog"}
    originals = {path.read_bytes() for path in pets.rglob("*.jpg")}
    assert all(sample.data in originals for sample in samples)


def test_the_same_photos_again_upload_nothing(s3: Any, pets: Path) -> None:
    first = upload(s3, BUCKET, "pets", str(pets))
    before = keys(s3)
    again = upload(s3, BUCKET, "pets", str(pets))
    assert (again["changed"], again["uploaded_bytes"], again["new_shards"]) == (False, 0, 0)
    assert again["version"] == first["version"]
    assert keys(s3) == before


def test_the_same_photos_give_the_same_version_elsewhere(s3: Any, pets: Path, tmp_path: Path) -> None:
    s3.create_bucket(Bucket="elsewhere")
    shutil.copytree(pets, tmp_path / "copy")
    assert (
        upload(s3, "elsewhere", "other-name", str(tmp_path / "copy"))["version"]
        == upload(s3, BUCKET, "pets", str(pets))["version"]
    )


def test_one_percent_more_photos_upload_about_one_percent_of_the_bytes(s3: Any, tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path, {"cat": 300, "dog": 300})
    first = upload(s3, BUCKET, "pets", str(folder))
    folder_of_photos(tmp_path, {"cat": 3, "dog": 3}, first_seed=5000)
    second = upload(s3, BUCKET, "pets", str(folder))
    shards = {shard.sha256 for shard in manifest_of(s3, first).shards}
    new = sum(shard.bytes for shard in manifest_of(s3, second).shards if shard.sha256 not in shards)
    # A tar is padded to 10 kB, which weighs with photos as small as these.
    assert new <= 0.012 * first["total_bytes"] + 10240
    before, after = splits_of(s3, first), splits_of(s3, second)
    assert {sha: after[sha] for sha in before} == before
    assert (second["parent"], len(after)) == (first["version"], 606)


def test_a_removed_photo_rewrites_one_shard(s3: Any, pets: Path) -> None:
    first = upload(s3, BUCKET, "pets", str(pets))
    next(pets.rglob("*.jpg")).unlink()
    second = upload(s3, BUCKET, "pets", str(pets))
    kept = {shard.sha256 for shard in manifest_of(s3, first).shards} & {
        shard.sha256 for shard in manifest_of(s3, second).shards
    }
    assert (len(kept), second["new_shards"]) == (2, 1)
    before, after = splits_of(s3, first), splits_of(s3, second)
    assert all(before[sha] == split for sha, split in after.items())


def test_photos_already_in_s3(s3: Any, pets: Path) -> None:
    for path in pets.rglob("*.jpg"):
        s3.upload_file(str(path), BUCKET, f"raw/pets/{path.relative_to(pets).as_posix()}")
    doubled = next(pets.glob("cat/*.jpg"))  # of a prefix that ended in a slash
    s3.delete_object(Bucket=BUCKET, Key=f"raw/pets/cat/{doubled.name}")
    s3.upload_file(str(doubled), BUCKET, f"raw/pets//cat/{doubled.name}")
    s3.put_object(Bucket=BUCKET, Key="raw/pets/cat/", Body=b"")
    s3.put_object(Bucket=BUCKET, Key="raw/pets/cat/.DS_Store", Body=b"x")
    s3.put_object(Bucket=BUCKET, Key="raw/pets/dog/bad.jpg", Body=b"no photo")
    s3.put_object(Bucket=BUCKET, Key="raw/pets/loose.jpg", Body=photo(999))
    from_s3 = upload(s3, BUCKET, "pets", f"s3://{BUCKET}/raw/pets")
    assert {item["path"] for item in from_s3["rejected_examples"]} == {"dog/bad.jpg", "loose.jpg"}
    assert from_s3["classes"] == ["cat", "dog"]
    assert from_s3["version"] == upload(s3, BUCKET, "local", str(pets))["version"]


def test_an_upload_that_is_cut_off_leaves_no_version_and_loses_no_work(
    s3: Any, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = upload(s3, BUCKET, "whole", str(pets))
    put = Place.put

    def dies(place: Place, key: str, body: bytes) -> None:
        if key.endswith("manifest.json"):
            raise KeyboardInterrupt
        put(place, key, body)

    with monkeypatch.context() as dying:
        dying.setattr(Place, "put", dies)
        with pytest.raises(KeyboardInterrupt):
            upload(s3, BUCKET, "pets", str(pets))
    assert "datasets/pets/latest.json" not in keys(s3)
    assert not any(key.endswith("manifest.json") for key in keys(s3, "datasets/pets/"))
    again = upload(s3, BUCKET, "pets", str(pets))
    assert again["version"] == whole["version"]
    shards = manifest_of(s3, again).total_bytes
    assert again["uploaded_bytes"] < shards


def test_a_photo_that_changes_under_way_stops_the_upload(
    s3: Any, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_code.data.source import Folder

    reads: dict[str, int] = {}
    read = Folder.read

    def changing(folder: Folder, path: str) -> bytes:
        reads[path] = reads.get(path, 0) + 1
        return read(folder, path) + (b"more" if reads[path] > 1 else b"")

    monkeypatch.setattr(Folder, "read", changing)
    with pytest.raises(DatasetError, match="changed during the upload"):
        upload(s3, BUCKET, "pets", str(pets))
    assert keys(s3) == set()


def test_a_folder_that_is_no_data_set_uploads_nothing(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no photo"):
        upload(s3, BUCKET, "pets", str(tmp_path))
    with pytest.raises(DatasetError, match="holds no photo"):
        upload(s3, BUCKET, "pets", f"s3://{BUCKET}/nothing/here")
    assert keys(s3) == set()


def test_no_folder_is_not_the_working_directory(s3: Any, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pets)
    with pytest.raises(DatasetError, match="ML_PIPELINE_DEFAULTS"):
        upload(s3, BUCKET, "pets", "")


@pytest.mark.parametrize("name", ["Pets", "my_pets", "", "-a", "a" * 41, "a/b"])
def test_names_that_would_not_work_everywhere_are_refused(s3: Any, pets: Path, name: str) -> None:
    with pytest.raises(ValueError, match="dog-breeds"):
        upload(s3, BUCKET, name, str(pets))


def test_the_result_is_small_json(s3: Any, pets: Path) -> None:
    for number in range(40):
        (pets / "cat" / f"bad{number}.jpg").write_bytes(b"bad")
    result = upload(s3, BUCKET, "pets", str(pets))
    assert result["rejected"] == 40
    assert len(result["rejected_examples"]) == 20
    assert len(json.dumps(result)) < 4000
    assert len(manifest_of(s3, result).rejected) == 40


def albums(s3: Any) -> dict[str, dict[str, bytes]]:
    """The thumbnails by the SHA-256 of their shard, then by that of their photo."""
    prefix = "datasets/pets/thumbnails/"
    found = {}
    for key in keys(s3, prefix):
        body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        with zipfile.ZipFile(io.BytesIO(body)) as album:
            assert all(member.compress_type == zipfile.ZIP_STORED for member in album.infolist())
            pictures = {name.removesuffix(".jpg"): album.read(name) for name in album.namelist()}
        found[key.removeprefix(prefix).removesuffix(".zip")] = pictures
    return found


def shards_of(s3: Any, result: Any) -> set[str]:
    return {shard.sha256 for shard in manifest_of(s3, result).shards}


def test_every_new_shard_gets_the_thumbnails_of_its_photos_by_one_request(
    s3: Any, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = upload(s3, BUCKET, "pets", str(pets))
    made = albums(s3)
    assert set(made) == shards_of(s3, first)
    assert {photo for album in made.values() for photo in album} == set(splits_of(s3, first))
    sent: list[str] = []
    s3.meta.events.register(
        "before-send.s3", lambda request, **_: sent.append(f"{request.method} {request.url}")
    )
    next(pets.rglob("*.jpg")).unlink()  # its shard is written again
    (pets / "cat" / "new.jpg").write_bytes(photo(900))
    second = upload(s3, BUCKET, "pets", str(pets))
    assert set(albums(s3)) - set(made) == shards_of(s3, second) - shards_of(s3, first)
    assert second["new_shards"] == 2
    for folder in ("thumbnails", "shards"):
        assert len([line for line in sent if line.startswith("PUT ") and f"/{folder}/" in line]) == 2


def test_the_same_photos_give_the_same_bytes_of_thumbnails(s3: Any, pets: Path, tmp_path: Path) -> None:
    upload(s3, BUCKET, "pets", str(pets))
    upload(s3, BUCKET, "others", str(shutil.copytree(pets, tmp_path / "copy")))
    bodies = [
        {
            key.rpartition("/")[2]: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            for key in keys(s3, prefix)
        }
        for prefix in ("datasets/pets/thumbnails/", "datasets/others/thumbnails/")
    ]
    assert bodies[0] == bodies[1]


def test_a_data_set_of_an_earlier_release_gets_the_thumbnails_of_shards_that_are_written(
    s3: Any, pets: Path
) -> None:
    upload(s3, BUCKET, "pets", str(pets))
    for shard in albums(s3):
        s3.delete_object(Bucket=BUCKET, Key=f"datasets/pets/thumbnails/{shard}.zip")
    upload(s3, BUCKET, "pets", str(pets))
    assert albums(s3) == {}
    next(pets.rglob("*.jpg")).unlink()
    second = upload(s3, BUCKET, "pets", str(pets))
    (shard,) = albums(s3)
    assert second["new_shards"] == 1
    assert shard in shards_of(s3, second)


def test_a_photo_without_a_thumbnail_does_not_stop_the_upload(
    s3: Any, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_code.data import photos

    def refuses(data: bytes, side: int) -> bytes:
        raise photos.PhotoError(photos.PhotoReason.UNSUPPORTED)

    monkeypatch.setattr(photos, "thumbnail", refuses)
    made = upload(s3, BUCKET, "pets", str(pets))
    assert albums(s3) == {shard: {} for shard in shards_of(s3, made)}


def test_an_upload_that_dies_between_shard_and_thumbnails_goes_on(
    s3: Any, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = upload(s3, BUCKET, "whole", str(pets))
    put = Place.put_file

    def dies(place: Place, key: str, path: Path) -> None:
        if key.startswith("shards/"):
            raise ConnectionError("cut off")
        put(place, key, path)

    with monkeypatch.context() as dying:
        dying.setattr(Place, "put_file", dies)
        with pytest.raises(ConnectionError):
            upload(s3, BUCKET, "pets", str(pets))
    assert len(albums(s3)) == 1
    assert not any("/versions/" in key or "/shards/" in key for key in keys(s3, "datasets/pets/"))
    again = upload(s3, BUCKET, "pets", str(pets))
    assert again["version"] == whole["version"]
    assert set(albums(s3)) == shards_of(s3, again)
