"""Params of the DAGs."""

from __future__ import annotations

import re

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


@pytest.mark.parametrize(
    ("dag_id", "given", "words"),
    [
        ("train_and_deploy", {"trialz": 1}, "train_and_deploy has no param 'trialz' (did you mean trials"),
        ("batch_predict", {"photo": "x"}, "did you mean photos"),
        ("janitor", {"dryrun": False}, "did you mean dry_run"),
        ("teardown", {"endpoint": "dogs"}, "did you mean endpoint_name"),
        ("deploy", {"versions": "3"}, "did you mean version"),
        ("scheduled_retraining", {"dataset_nam": "x"}, "did you mean dataset_name"),
        ("watch", {"endpoint": "dogs"}, "did you mean endpoint_name"),
        ("watch", {"conf": {"trialz": 1}}, "did you mean trials"),
        ("retraining_proposal", {"conf": {"trialz": 1}}, "did you mean trials"),
        ("scheduled_retraining", {"conf": {"budget": 1}}, "conf: train_and_deploy has no param 'budget'"),
    ],
)
def test_a_misspelt_param_is_refused_by_every_dag(dag_id: str, given: dict[str, object], words: str) -> None:
    form = params.forms()[dag_id]()
    good = {name: param.value for name, param in form.items()}
    params.check_names(dag_id, good)
    with pytest.raises(ValueError, match=re.escape(words)):
        params.check_names(dag_id, {**good, **given})


def test_a_misspelt_default_is_an_error_and_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PIPELINE_DEFAULTS", '{"trialz": 20}')
    with pytest.raises(ValueError, match=r"ML_PIPELINE_DEFAULTS.*did you mean trials"):
        params.train_and_deploy()
    # A param of another DAG is a name that exists.
    monkeypatch.setenv("ML_PIPELINE_DEFAULTS", '{"instance_hours": 20}')
    params.train_and_deploy()
