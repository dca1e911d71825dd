"""The default functions of AWS's inference images."""

from __future__ import annotations

import io
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
