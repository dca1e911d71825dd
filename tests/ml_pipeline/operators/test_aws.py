"""The base operator."""

from __future__ import annotations

import pytest

from ml_pipeline.operators.aws import AwsOperator


def test_operators_take_the_connection_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_AWS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ML_PIPELINE_AWS_CONN_ID", "team_aws")
    assert AwsOperator(task_id="a").access.aws_conn_id == "team_aws"
    assert AwsOperator(task_id="b", aws_conn_id="own").access.aws_conn_id == "own"
