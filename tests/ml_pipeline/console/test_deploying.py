"""The buttons that deploy and roll back, as far as Airflow's own API: the DAG `deploy` takes their params."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.ml_pipeline.console.conftest import Console, serve


@pytest.fixture
def api(site: FastAPI) -> Iterator[TestClient]:
    with TestClient(site) as client:
        yield client


def offered(console: Console) -> dict[int, Any]:
    """The params behind the button of each version; None without a button."""
    found = console.get("models/versions", group="dogs").json()["versions"]
    return {row["version"]: row["deploy"] for row in found}


def start(api: TestClient, headers: dict[str, str], conf: Any) -> Any:
    body = {"logical_date": None, "conf": conf}
    return api.post("/api/v2/dags/deploy/dagRuns", json=body, headers=headers)


def test_the_dag_takes_the_params_of_each_button(console: Console, api: TestClient) -> None:
    serve(console, 2)
    rows = offered(console)
    assert rows == {1: {"dataset_name": "dogs", "version": "1", "endpoint_name": "photos"}, 2: None}
    answer = start(api, console.admin, rows[1])
    assert answer.status_code == 200, answer.text
    assert answer.json()["conf"].items() >= rows[1].items()
    form = api.get("/api/v2/dags/deploy/details", headers=console.viewer).json()["params"]
    assert rows[1].keys() <= form.keys()


def test_without_an_endpoint_the_dag_chooses_it(console: Console, api: TestClient) -> None:
    rows = offered(console)
    assert rows[2] == {"dataset_name": "dogs", "version": "2", "endpoint_name": ""}
    assert start(api, console.admin, rows[2]).status_code == 200


def test_airflow_refuses_what_is_no_param_value_and_who_may_not_deploy(
    console: Console, api: TestClient
) -> None:
    conf = offered(console)[2]
    assert start(api, console.admin, {**conf, "dataset_name": "No Name"}).status_code == 400
    assert start(api, console.viewer, conf).status_code == 403


@pytest.mark.parametrize(
    ("status", "reason", "shown"),
    [
        ("PendingManualApproval", "", False),
        ("Rejected", "blurred classes", False),
        ("Rejected", "Not in service: version 1 was deployed instead", True),
        ("Approved", "fine", True),
    ],
)
def test_only_versions_that_deploy_would_take_have_a_button(
    console: Console, status: str, reason: str, shown: bool
) -> None:
    newest = console.get("models/versions", group="dogs").json()["versions"][0]
    console.store.client("sagemaker").update_model_package(
        ModelPackageArn=newest["arn"], ModelApprovalStatus=status, ApprovalDescription=reason
    )
    console.store._brief.clear()
    console.store._lasting.clear()
    assert (offered(console)[2] is not None) is shown
