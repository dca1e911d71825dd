"""The command, on shards and embeddings as the embed job leaves them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from model_code.check.__main__ import main
from model_code.data.shards import Sample, Split, write_shard
from model_code.embed.embeddings import Embeddings, file_name, write_embeddings
from tests.model_code import toys
from tests.model_code.photo_files import encoded, picture

EVIL = "<img src=x onerror=alert(1)>"


def shard(folder: Path, split: Split, samples: list[Sample]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    info = write_shard(folder / "new.tar", split, samples)
    (folder / "new.tar").rename(folder / f"{info.sha256}.tar")


def sample(data: bytes, label: str) -> Sample:
    return Sample(hashlib.sha256(data).hexdigest()[:20], label, data, "jpg")


@pytest.fixture
def channels(tmp_path: Path) -> dict[str, Path]:
    """Two splits of the toy classes; one photo of training is in the test split too, under another class."""
    first = [sample(toys.photo(label, n, 96), label) for n in range(12) for label in toys.CLASSES]
    leak = picture(5, 96, 96)
    shard(tmp_path / "shards", Split.TRAIN, [*first, sample(encoded(leak, quality=95), "red")])
    second = [sample(toys.photo(label, n, 96), label) for n in range(20, 24) for label in toys.CLASSES]
    shard(tmp_path / "shards", Split.TEST, [*second, sample(encoded(leak, quality=60), "blue")])
    return {"shards": tmp_path / "shards", "embeddings": tmp_path / "embeddings", "output": tmp_path / "out"}


def command(channels: dict[str, Path], *more: str) -> list[str]:
    return [*(part for name, path in channels.items() for part in (f"--{name}", str(path))), *more]


def test_embed_and_check_in_one_job(channels: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    transform = json.dumps(toys.EMBEDDER.transform.to_dict())
    assert (
        main(command(channels, "--embed", "--architecture", "squeezenet1_1", "--transform", transform)) == 0
    )
    assert len(list(channels["embeddings"].glob("*.safetensors"))) == 2
    document = json.loads((channels["output"] / "check.json").read_text())
    assert document["photos"] == 12 * 3 + 4 * 3 + 2
    assert [row["name"] for row in document["classes"]] == list(toys.CLASSES)
    (pair,) = [
        pair
        for pair in document["near_duplicates"]["listed"]
        if pair["left"]["split"] != pair["right"]["split"]
    ]
    assert {pair["left"]["class"], pair["right"]["class"]} == {"red", "blue"}
    assert document["near_duplicates"]["across_splits"] == 1
    assert document["balance"]["too_small"] == ["green", "blue", "red"]
    found = [json.loads(line) for line in (channels["output"] / "findings.jsonl").read_text().splitlines()]
    kinds = {finding["kind"] for row in found for finding in row["findings"]}
    assert "near_duplicate" in kinds
    assert all(row["key"] and row["class"] in toys.CLASSES for row in found)
    assert "suspects=" in capsys.readouterr().out


def test_a_check_that_fails_does_not_lose_the_embeddings(
    channels: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (channels["embeddings"].parent / "dataset").mkdir()
    (channels["embeddings"].parent / "dataset" / "manifest.json").write_text("{")
    channels = {**channels, "dataset": channels["embeddings"].parent / "dataset"}
    transform = json.dumps(toys.EMBEDDER.transform.to_dict())
    assert (
        main(command(channels, "--embed", "--architecture", "squeezenet1_1", "--transform", transform)) == 0
    )
    assert len(list(channels["embeddings"].glob("*.safetensors"))) == 2
    assert not (channels["output"] / "check.json").exists()
    assert "damaged manifest" in capsys.readouterr().err


def stored(folder: Path, classes: tuple[str, ...] = toys.CLASSES) -> None:
    """Embeddings whose class names are `classes`, without shards."""
    folder.mkdir(parents=True, exist_ok=True)
    batch = toys.embeddings(Split.TRAIN)
    fields = {name: value for name, value in vars(batch).items() if name != "classes"}
    write_embeddings(folder / file_name(batch.shard), Embeddings(classes=classes, **fields))


def test_a_class_is_never_markup(tmp_path: Path) -> None:
    stored(tmp_path / "embeddings", tuple(sorted(("green", "red", EVIL))))
    (tmp_path / "shards").mkdir()
    channels = {name: tmp_path / name for name in ("shards", "embeddings")}
    assert main(command({**channels, "output": tmp_path / "out"})) == 0
    page = (tmp_path / "out" / "data_report.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_embeddings_without_shards_are_judged_all_the_same(tmp_path: Path) -> None:
    stored(tmp_path / "embeddings")
    (tmp_path / "shards").mkdir()
    channels = {name: tmp_path / name for name in ("shards", "embeddings")}
    assert main(command({**channels, "output": tmp_path / "out"})) == 0
    document = json.loads((tmp_path / "out" / "check.json").read_text())
    assert document["photos"] == 90
    assert document["photos_to_look_at"]["blurred"]["count"] == 0
    assert document["unreadable"] == []


def test_one_class_cannot_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = toys.embeddings(Split.TRAIN, {"blue": 3, "green": 0, "red": 0})
    (tmp_path / "embeddings").mkdir()
    fields = {name: value for name, value in vars(batch).items() if name != "classes"}
    write_embeddings(
        tmp_path / "embeddings" / file_name(batch.shard), Embeddings(classes=("blue",), **fields)
    )
    (tmp_path / "shards").mkdir()
    channels = {name: tmp_path / name for name in ("shards", "embeddings")}
    assert main(command({**channels, "output": tmp_path / "out"})) == 1
    assert "from two classes on" in capsys.readouterr().err


def test_an_unknown_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--architecture", "mobilenet_v2"])
    assert "unrecognized arguments" in capsys.readouterr().err
