"""The log of corrections: nothing is lost, the newest counts, the next version applies it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline import corrections as command
from ml_pipeline.dataset import corrections
from ml_pipeline.dataset.corrections import Action, Correction, CorrectionError
from ml_pipeline.dataset.upload import upload
from tests.local_aws.s3.s3_server import running_s3
from tests.ml_pipeline.dataset.stores import BUCKET, Store, bucket, sha, shapes

WHEN = "2026-11-30T00:00:00+00:00"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_AWS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ML_PIPELINE_BUCKET", BUCKET)
    with bucket() as s3:
        yield Store(s3)


def entry(sha256: str, action: Action = Action.REJECT, label: str | None = None, why: str = "") -> Correction:
    return Correction(sha256, action, label, "ana", WHEN, why)


def test_the_newest_entry_counts_and_order_is_kept(store: Store) -> None:
    one, other = "a" * 64, "b" * 64
    corrections.append(store.s3, BUCKET, "pets", [entry(one), entry(other, Action.LABEL, "owl")])
    corrections.append(store.s3, BUCKET, "pets", [entry(one, Action.KEEP)])
    log = corrections.load(store.s3, BUCKET, "pets")
    assert [item.action for item in log.entries] == [Action.REJECT, Action.LABEL, Action.KEEP]
    assert log.newest() == {one: entry(one, Action.KEEP), other: entry(other, Action.LABEL, "owl")}


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Write to the S3 of local_aws: moto checks a condition and writes in two steps, so two writers may both win."""
    with running_s3(tmp_path) as server:
        s3 = server.client()
        s3.create_bucket(Bucket=BUCKET)
        write_at_once(s3)
        assert len(corrections.load(s3, BUCKET, "pets").newest()) == 20


def write_at_once(s3: Any) -> None:
    def write(number: int) -> None:
        for round_ in range(5):
            corrections.append(s3, BUCKET, "pets", [entry(f"{number:032x}{round_:032x}")])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_next_version_applies_and_counts_them(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    files = shapes()
    uri = store.source("pets", files)
    upload(store.s3, BUCKET, "pets", uri)
    bad, wrong = (sha(files[path]) for path in ("circle/1.jpg", "circle/2.jpg"))
    assert command.main(["pets", "reject", bad[:20], "--why", "blurred", "--who", "ana"], store.s3) == 0
    assert command.main(["pets", "label", "square", wrong, "--who", "bo"], store.s3) == 0
    result: Any = upload(store.s3, BUCKET, "pets", uri)
    assert (result["corrected"], result["read"]) == (2, 0)
    assert result["rejected_examples"] == [{"path": "circle/1.jpg", "reason": "rejected by ana: blurred"}]
    assert store.rows(result)[wrong]["class"] == "square"
    assert bad not in store.rows(result)
    capsys.readouterr()
    assert command.main(["pets", "list"], store.s3) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(item["action"], item["who"]) for item in listed} == {("reject", "ana"), ("label", "bo")}
    assert command.main(["pets", "keep", bad, wrong], store.s3) == 0
    restored: Any = upload(store.s3, BUCKET, "pets", uri)
    assert (restored["corrected"], restored["rejected"]) == (0, 0)


@pytest.mark.parametrize("photo", ["abc", "f" * 64])
def test_unknown_photos_are_refused(store: Store, photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["pets", "reject", photo], store.s3) == 1
    assert "there is no data set 'pets'" in capsys.readouterr().err
    upload(store.s3, BUCKET, "pets", store.source("pets", shapes()))
    assert command.main(["pets", "reject", photo], store.s3) == 1
    assert "is not a photo of 'pets'" in capsys.readouterr().err


def test_nonsense_is_refused() -> None:
    with pytest.raises(CorrectionError, match="a label belongs"):
        entry("a" * 64, Action.LABEL)
    with pytest.raises(CorrectionError, match="a label belongs"):
        entry("a" * 64, Action.KEEP, "owl")
    with pytest.raises(CorrectionError, match="not a SHA-256"):
        entry("abc")


@pytest.mark.parametrize(
    ("body", "message"), [(b"{", "is damaged"), (b'{"schema_version": 99}', "newer release; update")]
)
def test_damaged_and_newer_logs_are_refused(store: Store, body: bytes, message: str) -> None:
    store.s3.put_object(Bucket=BUCKET, Key="datasets/pets/corrections/00000001.jsonl", Body=body)
    with pytest.raises(CorrectionError, match=message):
        corrections.load(store.s3, BUCKET, "pets")
