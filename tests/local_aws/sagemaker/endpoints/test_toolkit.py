"""The default functions of AWS's inference images."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from local_aws.sagemaker.endpoints import toolkit


class Doubler:
    def predict(self, data: Any) -> Any:
        return data * 2


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> toolkit.Handlers:
    monkeypatch.setattr(toolkit, "load", lambda _folder: Doubler())
    return toolkit.Handlers(Path("/nowhere"), None)


def test_json_and_csv(handlers: toolkit.Handlers) -> None:
    assert handlers.answer(b"[[1, 2]]", "application/json", "application/json") == (
        b"[[2.0, 4.0]]",
        "application/json",
    )
    assert handlers.answer(b"1,2\n3,4", "text/csv; charset=utf-8", "text/csv") == (b"2,4\n6,8\n", "text/csv")


def test_numpy_bodies_hold_no_pickles(handlers: toolkit.Handlers) -> None:
    body = io.BytesIO()
    np.save(body, np.array([1.5]))
    content, kind = handlers.answer(body.getvalue(), toolkit.NPY, toolkit.NPY)
    assert kind == toolkit.NPY
    assert np.load(io.BytesIO(content)).tolist() == [3.0]
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        handlers.answer(pickled.getvalue(), toolkit.NPY, toolkit.NPY)


def test_other_types_are_refused(handlers: toolkit.Handlers) -> None:
    with pytest.raises(toolkit.UnsupportedType):
        handlers.answer(b"x", "image/jpeg", "application/json")
    with pytest.raises(toolkit.UnsupportedType):
        handlers.answer(b"[1]", "application/json", "image/jpeg")


def test_transform_fn_replaces_the_three_functions(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/inference.py").write_text(
        "def model_fn(model_dir, context): return 'model'\n"
        "def transform_fn(model, data, content_type, accept): return model + data.decode(), 'text/plain'\n"
    )
    made = toolkit.Handlers(tmp_path, toolkit.script_of(tmp_path))
    assert made.answer(b"!", "text/plain", "text/plain") == (b"model!", "text/plain")


def test_a_model_without_a_script_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="model_fn"):
        toolkit.Handlers(tmp_path, toolkit.script_of(tmp_path))


@pytest.mark.parametrize("pickled", [False, True], ids=["as saved", "pickled by 1.2"])
def test_the_xgboost_image_serves_a_model_without_a_script(tmp_path: Path, pickled: bool) -> None:
    xgboost = pytest.importorskip("xgboost", reason="needs xgboost: pip install xgboost-cpu")
    rows = np.array([[0.0], [1.0], [2.0], [3.0]])
    settings = {"objective": "reg:squarederror", "eta": 1.0, "lambda": 0.0, "max_depth": 3, "base_score": 0.0}
    booster = xgboost.train(settings, xgboost.DMatrix(rows, rows[:, 0] * 2), num_boost_round=1)
    if pickled:
        (tmp_path / toolkit.BOOSTER).write_bytes(pickle.dumps(booster))
    else:
        booster.save_model(tmp_path / "model.ubj")
        (tmp_path / "model.ubj").rename(tmp_path / toolkit.BOOSTER)
    made = toolkit.Handlers(tmp_path, toolkit.script_of(tmp_path))
    assert made.answer(b"1\n3\n", "text/csv", "application/json") == (b"[2.0, 6.0]", "application/json")


def test_a_hugging_face_model_without_a_script_is_refused_with_the_script_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TASK", "text-classification")
    with pytest.raises(
        FileNotFoundError, match=r"Hugging Face image: put .*inference.py .*model_fn.*pipeline"
    ):
        toolkit.Handlers(tmp_path, toolkit.script_of(tmp_path))


def test_a_script_is_given_json_and_csv_as_text_but_in_the_xgboost_image(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/inference.py").write_text(
        "def model_fn(model_dir): return None\n"
        "def transform_fn(model, data, content_type, accept): return type(data).__name__, 'text/plain'\n"
    )
    script = toolkit.script_of(tmp_path)
    for content_type, known, expected in (
        ("text/csv", None, b"str"),
        ("application/json", None, b"str"),
        ("image/jpeg", None, b"bytes"),
        ("text/csv", (), b"bytes"),
    ):
        made = toolkit.Handlers(tmp_path, script, *([] if known is None else [known]))
        assert made.answer(b"1", content_type, "text/plain") == (expected, "text/plain")


def test_predictions_in_csv_are_one_line_each(handlers: toolkit.Handlers) -> None:
    assert handlers.answer(b"[1, 2]", "application/json", "text/csv") == (b"2\n4\n", "text/csv")
