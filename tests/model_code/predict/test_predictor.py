"""The predictor: calibrated answers, golden replay, and falling back loudly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_code.bundle.card import BundleError
from model_code.data.photos import PhotoError
from model_code.predict.predictor import Predictor, candidates
from model_code.predict.sessions import Runtime
from model_code.process.cores import cores
from tests.model_code.serve.toy_bundle import (
    CLASSES,
    GAIN,
    photo,
    probabilities,
    write_toy,
    write_toy_archive,
)

WRONG_HEAD = -GAIN * np.eye(3)


def test_predicts_calibrated_probabilities(tmp_path: Path) -> None:
    predictor = Predictor.open(write_toy(tmp_path), threads=1)
    answer = predictor.predict([photo("red", kind="PNG"), photo("blue", kind="PNG")])
    assert predictor.classes == CLASSES
    assert predictor.runtime == "onnx-int8"
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, [probabilities(1, 0, 0), probabilities(0, 0, 1)], atol=1e-6)
    np.testing.assert_allclose(predictor.logits([photo("red", kind="PNG")]), [[GAIN, 0, 0]], atol=1e-5)


def test_predicts_nothing_for_no_photos(tmp_path: Path) -> None:
    predictor = Predictor.open(write_toy(tmp_path), threads=1)
    assert predictor.predict([]).shape == (0, 3)
    assert predictor.logits([]).shape == (0, 3)


def test_more_photos_than_a_batch_keep_their_order(tmp_path: Path) -> None:
    predictor = Predictor.open(write_toy(tmp_path), threads=1)
    colours = ["red", "lime", "blue"] * 25
    found = predictor.predict([photo(colour) for colour in colours]).argmax(axis=1)
    assert list(found) == [0, 1, 2] * 25


def test_opens_an_archive_and_removes_what_it_unpacked(tmp_path: Path) -> None:
    predictor = Predictor.open(write_toy_archive(tmp_path), threads=1)
    unpacked = predictor.directory
    assert unpacked.is_dir()
    predictor.close()
    assert not unpacked.exists()


def test_int8_that_contradicts_its_golden_outputs_gives_way_to_float(tmp_path: Path) -> None:
    said: list[str] = []
    predictor = Predictor.open(write_toy(tmp_path, int8_head=WRONG_HEAD), threads=1, on_fallback=said.append)
    assert predictor.runtime == "onnx"
    assert len(said) == 1
    assert "onnx-int8" in said[0]
    assert "golden photo 0" in said[0]


def test_the_fallback_is_loud_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Predictor.open(write_toy(tmp_path, int8_head=WRONG_HEAD), threads=1)
    assert "cannot serve with onnx-int8" in capsys.readouterr().err


def test_no_runtime_that_agrees_is_an_error_that_lists_why(tmp_path: Path) -> None:
    toy = write_toy(tmp_path, int8_head=WRONG_HEAD, float_head=WRONG_HEAD)
    with pytest.raises(BundleError, match=r"onnx-int8: golden.*onnx: golden"):
        Predictor.open(toy, threads=1, on_fallback=lambda _: None)


def test_a_chosen_runtime_comes_first(tmp_path: Path) -> None:
    assert Predictor.open(write_toy(tmp_path), runtime="onnx", threads=1).runtime is Runtime.ONNX
    with pytest.raises(BundleError, match="no runtime 'torch'"):
        Predictor.open(write_toy(tmp_path / "again"), runtime="torch", threads=1)


def test_unreadable_photo_is_a_photo_error(tmp_path: Path) -> None:
    predictor = Predictor.open(write_toy(tmp_path), threads=1)
    with pytest.raises(PhotoError):
        predictor.predict([b"not a photo"])


def test_candidates_never_go_back_to_a_more_preferred_runtime() -> None:
    assert candidates(["onnx-int8", "onnx", "torch"], "onnx") == [Runtime.ONNX, Runtime.TORCH]


def test_threads_come_from_the_share_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("SM_NUM_CPUS", raising=False)
    assert cores() == 3
    monkeypatch.setenv("SM_NUM_CPUS", "5")
    assert cores() == 5
