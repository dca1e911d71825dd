"""Shards to a judged bundle through the entry points, as by hand: embed, train --mode final, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_code.bundle.archive import Bundle
from model_code.data.shards import Split
from model_code.data.transform import Transform
from model_code.embed import __main__ as embed
from model_code.evaluate import __main__ as evaluate
from model_code.train import __main__ as train
from model_code.watch import __main__ as watch
from tests.model_code import toys


def test_photos_become_a_bundle_that_is_judged_as_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, count, first in ((Split.TRAIN, 12, 0), (Split.VALID, 8, 100), (Split.TEST, 8, 200)):
        toys.shard(tmp_path / split, split, count, first=first)
    toys.manifest(tmp_path / "dataset")
    transform = json.dumps(Transform(64, 64).to_dict())
    (tmp_path / "no weights").mkdir()  # an empty channel: the backbone stays untrained
    for split in (Split.TRAIN, Split.VALID):
        arguments = ["--shards", tmp_path / split, "--output", tmp_path / "embeddings" / split]
        settings = [
            "--architecture",
            "squeezenet1_1",
            "--transform",
            transform,
        ]
        assert embed.main([str(part) for part in (*arguments, *settings)]) == 0
    channels = {
        "train": tmp_path / "embeddings" / "train",
        "valid": tmp_path / "embeddings" / "valid",
        "dataset": tmp_path / "dataset",
        "weights": tmp_path / "no weights",
        "calibration": tmp_path / "train",
        "valid_photos": tmp_path / "valid",
        "reference_photos": tmp_path / "test",
        "model_dir": tmp_path / "model",
    }
    recipe = {
        "mode": "final",
        "architecture": "squeezenet1_1",
        "epochs": 20,
        "batch_size": 12,
        "mixup": 0,
        "dropout": 0,
    }
    flags = [part for name, value in {**channels, **recipe}.items() for part in (f"--{name}", str(value))]
    assert train.main(flags, {}) == 0
    with Bundle.open(tmp_path / "model") as bundle:
        card = bundle.card
    assert [row["epoch"] for row in card.metrics["history"]][:2] == [1, 2]
    assert card.hyperparameters["epochs"] == 20
    assert "onnx" in card.runtimes
    assert "reference.safetensors" in card.files

    judged = ["--model", tmp_path / "model", "--test", tmp_path / "test", "--output", tmp_path / "out"]
    assert evaluate.main([*map(str, judged), "--dataset", str(tmp_path / "dataset"), "--workers", "1"]) == 0
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert document["accuracy"] > 0.8
    assert document["dataset"]["name"] == "toy"
    assert "Learning curves" in (tmp_path / "out" / "report.html").read_text()
    printed = capsys.readouterr().out
    assert "progress done=24 total=24 unit=photos" in printed
    assert f"test_accuracy={document['accuracy']:.6g}" in printed

    # The first look needs no test photos, and hands the reference on.
    looked = ["--captures", tmp_path / "none", "--model", tmp_path / "model", "--output", tmp_path / "looked"]
    assert watch.main([*map(str, looked)]) == 0
    found = json.loads((tmp_path / "looked" / "look" / "look.json").read_text())
    assert found["reference"]["photos"] == 24
    assert (tmp_path / "looked" / "reference" / "reference.safetensors").is_file()
