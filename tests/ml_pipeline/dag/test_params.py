"""Params of the DAGs."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import ParamValidationError

from ml_pipeline.dag import params
from ml_pipeline.settings import SettingsError


def test_a_team_has_its_own_defaults_of_params(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PIPELINE_DEFAULTS", '{"trials": 20, "data": "s3://team/photos", "dry_run": false}')
    training = params.train_and_deploy()
    assert (training["trials"].value, training["data"].value) == (20, "s3://team/photos")
    assert training["trials"].schema["maximum"] == 750
    assert params.scheduled_retraining()["data"].value == "s3://team/photos"
    assert params.janitor()["dry_run"].value is False
    monkeypatch.setenv("ML_PIPELINE_DEFAULTS", "[]")
    with pytest.raises(SettingsError, match="give a JSON object"):
        params.train_and_deploy()
    monkeypatch.setenv("ML_PIPELINE_DEFAULTS", '{"trials": 0}')
    with pytest.raises(ParamValidationError):
        params.train_and_deploy()
