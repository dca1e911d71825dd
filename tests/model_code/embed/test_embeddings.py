"""Embedding files: what is written is read, and what does not belong together is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import model_code
from model_code.data.shards import Split
from model_code.data.transform import Transform
from model_code.embed import embeddings
from model_code.embed.embeddings import Embedder, Embeddings, EmbeddingsError, embedder_id

EMBEDDER = Embedder("mobilenet_v2", "ab" * 32, Transform(), views=2)
BATCH = Embeddings(
    embeddings=np.arange(24, dtype=np.float16).reshape(6, 4),
    photo=np.repeat(np.arange(3, dtype=np.int32), 2),
    view=np.tile(np.arange(2, dtype=np.int32), 3),
    label=np.array([0, 0, 1, 1, 0, 0], np.int32),
    keys=("a" * 20, "b" * 20, "c" * 20),
    classes=("Löwchen", "beagle"),
    embedder=EMBEDDER,
    shard="cd" * 32,
    split=Split.TRAIN,
)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    embeddings.write_embeddings(tmp_path / "one.safetensors", BATCH)
    (read,) = embeddings.read_folder(tmp_path)
    for name in ("embeddings", "photo", "view", "label"):
        assert np.array_equal(getattr(read, name), getattr(BATCH, name))
        assert getattr(read, name).dtype == getattr(BATCH, name).dtype
    assert (read.keys, read.classes, read.embedder, read.shard, read.split, read.dim) == (
        BATCH.keys, BATCH.classes, EMBEDDER, BATCH.shard, Split.TRAIN, 4
    )  # fmt: skip


def test_metadata_follow_their_schema(tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / "one.safetensors"
    embeddings.write_embeddings(path, BATCH)
    with safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata())
    decoded = {name: json.loads(text) if text[:1] in "[{" else text for name, text in metadata.items()}
    schema = Path(model_code.__file__).parent / "schemas" / "embeddings.schema.json"
    jsonschema.validate(decoded, json.loads(schema.read_text()))


def test_the_id_stands_for_everything_that_changes_an_embedding() -> None:
    base = embedder_id("mobilenet_v2", "ab" * 32, Transform(), 2)
    assert base == EMBEDDER.id
    assert len(base) == 16
    others = {
        embedder_id("resnet18", "ab" * 32, Transform(), 2),
        embedder_id("mobilenet_v2", None, Transform(), 2),
        embedder_id("mobilenet_v2", "ab" * 32, Transform(resize=224), 2),
        embedder_id("mobilenet_v2", "ab" * 32, Transform(), 1),
        replace(EMBEDDER, code=99).id,
    }
    assert len({base, *others}) == 6


def test_asking_for_the_id_loads_no_torch() -> None:
    import subprocess
    import sys

    modules = "model_code.embed.embeddings, model_code.data.manifest, model_code.data.sample_data"
    code = f"import {modules}, sys; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_views_are_for_training_photos() -> None:
    assert [EMBEDDER.views_of(split) for split in (Split.TRAIN, Split.VALID)] == [2, 1]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    embeddings.write_embeddings(path, BATCH)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(EmbeddingsError, match=r"one\.safetensors.*embed again"):
        embeddings.read_embeddings(path)


def test_a_newer_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(embeddings, "SCHEMA_VERSION", 7)
        embeddings.write_embeddings(tmp_path / "one.safetensors", BATCH)
    with pytest.raises(EmbeddingsError, match=r"schema_version 7.*update"):
        embeddings.read_embeddings(tmp_path / "one.safetensors")


def test_files_of_two_embedders_do_not_mix(tmp_path: Path) -> None:
    embeddings.write_embeddings(tmp_path / "one.safetensors", BATCH)
    embeddings.write_embeddings(
        tmp_path / "two.safetensors", replace(BATCH, embedder=replace(EMBEDDER, views=3))
    )
    with pytest.raises(EmbeddingsError, match="2 embedders"):
        embeddings.read_folder(tmp_path)
    with pytest.raises(EmbeddingsError, match=r"run model_code\.embed"):
        embeddings.read_folder(tmp_path / "nothing")


def test_columns_must_match() -> None:
    with pytest.raises(ValueError, match="columns"):
        replace(BATCH, view=BATCH.view[:3])
    with pytest.raises(ValueError, match="beyond"):
        replace(BATCH, keys=("a" * 20,))
