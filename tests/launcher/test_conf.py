"""CONF is checked before any service starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher import preflight
from launcher.airflow_api import _errors
from launcher.settings import Settings, SettingsError


@pytest.mark.parametrize(
    ("conf", "words"),
    [({"trialz": 3}, "did you mean trials"), ({"trials": "x"}, "not of type 'integer'")],
)
def test_a_wrong_param_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conf: dict[str, object], words: str
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", "restored after the test")
    settings = Settings.from_environ({"ML_PIPELINE_HOME": str(tmp_path), "CONF": json.dumps(conf)})
    with pytest.raises(SettingsError, match=words):
        preflight.check_conf(settings, "train_and_deploy")


def test_the_exception_is_the_reason_whatever_its_class_is_called() -> None:
    entry = {
        "event": "Task failed",
        "error_detail": [{"exc_type": "NoSuchVersion", "exc_value": "no version 9"}],
    }
    assert _errors(entry) == ["NoSuchVersion: no version 9"]
    assert _errors("text") == _errors({"event": "::endgroup::"}) == []
