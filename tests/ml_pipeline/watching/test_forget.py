"""Photos are taken out of a real bucket, in every version of every object, with the rights of one role."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ml_pipeline.dataset import corrections
from ml_pipeline.dataset.corrections import Action
from ml_pipeline.dataset.upload import upload
from ml_pipeline.registry import packages as registry
from ml_pipeline.watching import reviews, truth
from ml_pipeline.watching.forget.__main__ import main
from ml_pipeline.watching.forget.traces import Traces, without
from model_code.data.shards import Sample, Split, write_shard
from model_code.data.versions import thumbnails
from tests.infra.stacks import BUCKET, REGION
from tests.local_aws.iam.enforced import Account, create_roles
from tests.model_code.photo_files import folder_of_photos, photo

NAME = "dogs"
# Sent to an endpoint and reviewed; never in the source.
SENT = photo(900)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    running = Account(tmp_path_factory.mktemp("account"), ("--iam", "enforce", "--region", REGION))
    running.start()
    create_roles(running)
    running.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield running
    running.stop()


def put(account: Account, key: str, body: bytes | str) -> None:
    account.s3.put_object(Bucket=BUCKET, Key=key, Body=body)


def read(account: Account, key: str) -> bytes:
    body: bytes = account.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return body


def capture(data: bytes, event: str, inference_id: str) -> str:
    side = {
        "observedContentType": "image/jpeg",
        "data": base64.b64encode(data).decode(),
        "encoding": "BASE64",
    }
    metadata = {"eventId": event, "inferenceTime": "2026-01-01T00:00:00Z", "inferenceId": inference_id}
    return json.dumps({"captureData": {"endpointInput": side}, "eventMetadata": metadata}) + "\n"


def model(*golden: bytes) -> bytes:
    card = {"golden": [{"photo": base64.b64encode(data).decode(), "probabilities": [1]} for data in golden]}
    files = {"model.json": json.dumps(card).encode(), "model.safetensors": b"weights"}
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return written.getvalue()


def everywhere(account: Account, version: str, shards: list[str], gone: bytes, stays: bytes) -> None:
    """Put two photos wherever the pipeline puts photos; `gone` also into versions that were overwritten."""
    s3, names = account.s3, {data: hashlib.sha256(data).hexdigest() for data in (gone, stays, SENT)}
    files = "captures/7d/dogs/main/2026/01/01/00/a.jsonl"
    for _ in range(2):
        put(
            account, files, "".join(capture(data, names[data], f"client {names[data][:4]}") for data in names)
        )
    put(account, "captures/7d/dogs/main/2026/01/01/00/try.jsonl", capture(gone, "t", "ml-pipeline-test/1"))
    queue = [
        {"sha256": sha256, "prediction": "a", "probability": 0.4, "why": "uncertain"}
        for sha256 in names.values()
    ]
    put(account, "jobs/watch-1/look/queue.json", json.dumps(queue))
    put(account, "jobs/watch-1/look/photos.jsonl", "".join(json.dumps(entry) + "\n" for entry in queue))
    for data, sha256 in names.items():
        put(account, f"jobs/watch-1/look/queue/{sha256}", data)
        put(account, f"jobs/watch-1/look/queue/{sha256}.jpg", data)
        put(account, f"jobs/{sha256[:4]}/look/page.html", f"<img><code>{sha256[:20]}</code>")
    reviews.enqueue(s3, BUCKET, NAME, f"s3://{BUCKET}/jobs/watch-1/look/", queue, "dogs")
    reviews.answer(s3, BUCKET, NAME, names[SENT], Action.LABEL, "a", "ann")
    corrections.append(
        s3,
        BUCKET,
        NAME,
        [corrections.Correction(names[gone], Action.KEEP, None, "ann", corrections.now(), "")],
    )
    truth.store(s3, BUCKET, NAME, [truth.Label(f"client {names[data][:4]}", "a") for data in (gone, stays)])
    lines = [json.dumps({"key": sha256[:20], "label": "a"}) for sha256 in names.values()]
    put(account, "jobs/evaluate-1/evaluation/predictions.jsonl", "\n".join(lines))
    worst = [{"key": sha256[:20], "class": "a"} for sha256 in names.values()]
    put(account, "jobs/evaluate-1/evaluation/evaluation.json", json.dumps({"accuracy": 0.5, "worst": worst}))
    put(account, "batch/0123/photos/anns/gone.jpg", gone)
    put(account, "batch/0123/photos/stays.jpg", stays)
    put(account, "batch/predict-1/answers/anns/gone.jpg.out", "{}")
    put(account, "batch/predict-1/predictions.csv", "photo,class\nanns/gone.jpg,a\nstays.jpg,a\n")
    put(account, "incoming/a/anything.jpg", gone)
    put(account, "jobs/train-1/output/model.tar.gz", model(stays, gone))
    for shard in shards:
        put(account, f"embeddings/e/{shard}.safetensors", b"rows")
    put(account, f"embeddings/e/versions/{version}/train.manifest", "[]")


def cut_off(account: Account, folder: Path, *photos: bytes) -> None:
    """Leave the shards of an upload that was killed before any version listed them."""
    for number, data in enumerate(photos):
        key = hashlib.sha256(data).hexdigest()[:20]
        write_shard(folder / "shard.tar", Split.TRAIN, [Sample(key, "a", data, "jpg")])
        put(account, f"datasets/{NAME}/shards/{number:064}.tar", (folder / "shard.tar").read_bytes())


def versions(account: Account) -> Iterator[tuple[str, bytes]]:
    """Every version of every object, key and bytes."""
    for page in account.s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET):
        for item in page.get("Versions", []):
            found = account.s3.get_object(Bucket=BUCKET, Key=item["Key"], VersionId=item["VersionId"])
            yield item["Key"], found["Body"].read()


def bodies(body: bytes) -> Iterator[bytes]:
    """An object, what is packed in it, and what is written in it as base64."""
    yield body
    if body[:2] == b"\x1f\x8b":
        yield from bodies(gzip.decompress(body))


def keys_with(account: Account, data: bytes) -> set[str]:
    sha256 = hashlib.sha256(data).hexdigest()
    needles = (data, base64.b64encode(data), sha256[:20].encode())
    return {
        key
        for key, body in versions(account)
        if sha256[:20] in key or any(needle in part for part in bodies(body) for needle in needles)
    }


def forget(account: Account, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    with monkeypatch.context() as patch:
        for name, value in (account.of("ml-pipeline-forget").keys or {}).items():
            patch.setenv(name.upper(), value)
        patch.setenv("LOCAL_AWS_URL", account.url)
        patch.setenv("ML_PIPELINE_BUCKET", BUCKET)
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        return main(arguments)


def test_no_byte_of_a_forgotten_photo_is_left_and_nothing_else_is_lost(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder_of_photos(tmp_path / "photos", {"a": 6, "b": 6})
    upload(account.s3, BUCKET, NAME, str(source))
    extra = folder_of_photos(source, {"a": 1, "b": 1}, first_seed=500)
    made = upload(account.s3, BUCKET, NAME, str(extra))
    gone, stays = (source / "a" / name for name in ("00000.jpg", "00001.jpg"))
    manifest = json.loads(
        account.s3.get_object(Bucket=BUCKET, Key=made["manifest_uri"].split("/", 3)[3])["Body"].read()
    )
    shards = [shard["sha256"] for shard in manifest["shards"]]
    everywhere(account, made["version"], shards, gone.read_bytes(), stays.read_bytes())
    registry.ensure_group(account.sagemaker, NAME, "dogs")
    package = registry.model_package(
        NAME, f"s3://{BUCKET}/jobs/train-1/output/model.tar.gz", "1.dkr.ecr.eu-west-1.amazonaws.com/x:1",
        "ml.m5.large", "s3://b/e.json", {"dataset_version": made["version"]}, approved=True,
    )  # fmt: skip
    arn = account.sagemaker.create_model_package(**package)["ModelPackageArn"]
    cut_off(account, tmp_path, gone.read_bytes(), stays.read_bytes())
    kept = keys_with(account, stays.read_bytes())
    assert len(keys_with(account, gone.read_bytes())) > 15

    assert forget(account, monkeypatch, str(gone)) == 1
    assert "say --yes" in capsys.readouterr().err
    sent = hashlib.sha256(SENT).hexdigest()
    assert forget(account, monkeypatch, str(gone), sent, "--yes") == 0
    assert arn in capsys.readouterr().out
    assert keys_with(account, gone.read_bytes()) == set()
    assert keys_with(account, SENT) == set()

    # The other photos are where they were, but for the pages of theirs and the old version of the data set.
    lost = kept - keys_with(account, stays.read_bytes())
    assert all(
        any(part in key for part in (f"versions/{made['version']}", "/shards/", "/thumbnails/", "/versions/"))
        for key in lost
    ), lost
    text = dict(versions(account))
    assert f"datasets/{NAME}/shards/{1:064}.tar" in text
    assert "batch/predict-1/answers/anns/gone.jpg.out" not in text
    assert text["batch/predict-1/predictions.csv"] == b"photo,class\nstays.jpg,a\n"
    assert text["captures/7d/dogs/main/2026/01/01/00/a.jsonl"].count(b"\n") == 1
    left = truth.load(account.s3, BUCKET, NAME)
    assert list(left) == [f"client {hashlib.sha256(stays.read_bytes()).hexdigest()[:4]}"]

    newest = json.loads(read(account, f"datasets/{NAME}/latest.json"))["version"]
    for shard in json.loads(read(account, f"datasets/{NAME}/versions/{newest}/manifest.json"))["shards"]:
        packed = read(account, f"datasets/{NAME}/thumbnails/{shard['sha256']}.zip")
        with zipfile.ZipFile(io.BytesIO(packed)) as album:
            assert len(album.namelist()) == shard["photos"]

    # Its source has it still, and does not bring it back; what was reviewed is gone as well.
    again = upload(account.s3, BUCKET, NAME, str(source))
    assert sum(again["counts"].values()) == sum(made["counts"].values()) - 1
    assert (again["new_shards"], again["read"]) == (0, 1)
    assert [item["reason"] for item in again["rejected_examples"]] == [
        "forgotten on request; take it out of the source"
    ]
    assert keys_with(account, gone.read_bytes()) <= {
        f"datasets/{NAME}/versions/{again['version']}/looks.jsonl.gz"
    }
    assert forget(account, monkeypatch, sent, "--yes") == 0


def test_the_pipeline_cannot_forget(account: Account) -> None:
    put(account, "jobs/x", b"x")
    version = account.s3.list_object_versions(Bucket=BUCKET, Prefix="jobs/x")["Versions"][0]["VersionId"]
    airflow: Any = account.of("ml-pipeline-airflow").s3
    with pytest.raises(ClientError, match="AccessDenied"):
        airflow.delete_object(Bucket=BUCKET, Key="jobs/x", VersionId=version)


def test_what_is_no_photo_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing.jpg", "--yes"]) == 1
    assert capsys.readouterr().err.startswith("forget: ")


def test_findings_of_looks_lose_the_lines_of_a_photo() -> None:
    lines = [
        f'{{"path": "{sha256[0]}.jpg", "sha256": "{sha256}"}}\n'.encode() for sha256 in ("1" * 64, "2" * 64)
    ]
    body = gzip.compress(b"".join(lines))
    key = "jobs/prepare/0/looks-1.jsonl.gz"
    assert gzip.decompress(without(key, body, Traces(frozenset(["1" * 64]))) or b"") == lines[1]
    assert without(key, body, Traces(frozenset(["3" * 64]))) is body
    assert without(key, b"not gzip", Traces(frozenset(["1" * 64]))) == b"not gzip"


def test_thumbnails_of_a_shard_lose_those_of_a_photo() -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as album:
        for digit in "123":
            thumbnails.add(album, digit * 64, digit.encode())
    key, gone = "datasets/dogs/thumbnails/0.zip", frozenset(["2" * 64])
    left = without(key, body.getvalue(), Traces(gone))
    assert left is not None
    assert b"2222" not in left
    with zipfile.ZipFile(io.BytesIO(left)) as album:
        assert {name: album.read(name) for name in album.namelist()} == {
            f"{digit * 64}.jpg": digit.encode() for digit in "13"
        }
    assert without(key, left, Traces(gone)) is left
    assert without(key, b"no ZIP", Traces(gone)) == b"no ZIP"


@pytest.mark.parametrize("damage", ["end", "other picture"])
def test_damaged_thumbnails_with_a_forgotten_photo_go_as_a_whole(damage: str) -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as album:
        for digit in "12":
            thumbnails.add(album, digit * 64, digit.encode() * 50)
    damaged = body.getvalue()
    damaged = damaged[:-4] if damage == "end" else damaged.replace(b"1" * 50, b"x" * 50)
    key = "datasets/dogs/thumbnails/0.zip"
    assert without(key, damaged, Traces(frozenset(["2" * 64]))) is None
    assert without(key, damaged, Traces(frozenset(["3" * 64]))) == damaged


def test_a_data_set_may_be_called_thumbnails() -> None:
    gone = Traces(frozenset([hashlib.sha256(b"photo").hexdigest()]))
    sent = {
        "captureData": {"endpointInput": {"data": base64.b64encode(b"photo").decode(), "encoding": "BASE64"}}
    }
    line = json.dumps({**sent, "eventMetadata": {"eventId": "1"}}).encode() + b"\n"
    assert without("captures/30d/thumbnails/AllTraffic/00/a.jsonl", line, gone) == b""
    lines = [json.dumps({"photo": photo}).encode() + b"\n" for photo in (*gone.photos, "5" * 64)]
    assert without("datasets/shards/corrections/1.jsonl", b"".join(lines), gone) == lines[1]
