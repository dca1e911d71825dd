"""Links lead to where there is something to see."""

from types import SimpleNamespace
from typing import Any

import pytest

from ml_pipeline.operators import links
from ml_pipeline.settings import Settings

AWS = {
    "ML_PIPELINE_BUCKET": "photos",
    "ML_PIPELINE_ROLE_ARN": "arn:aws:iam::1:role/r",
    "AWS_DEFAULT_REGION": "cn-north-1",
}
LOCAL = {"LOCAL_AWS_URL": "http://local-aws:4566", "LOCAL_AWS_PUBLIC_URL": "http://localhost:9000/"}


@pytest.fixture
def xcom(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """XComs of a task, in the place of Airflow's table."""
    left: dict[str, Any] = {}
    monkeypatch.setattr(links, "XCom", SimpleNamespace(get_value=lambda key, ti_key: left.get(key)))
    return left


def test_on_aws_a_task_links_to_the_console_of_its_partition(xcom: dict[str, Any]) -> None:
    xcom["job"] = links.thing(
        Settings.load(AWS), "train-1", "training", "jobs", "/aws/sagemaker/TrainingJobs"
    )
    assert links.SageMakerLink().get_link(None, ti_key=None) == (
        "https://console.amazonaws.cn/sagemaker/home?region=cn-north-1#/jobs/train-1"
    )
    assert links.LogLink().get_link(None, ti_key=None) == (
        "https://console.amazonaws.cn/cloudwatch/home?region=cn-north-1#logsV2:log-groups/log-group/"
        "$252Faws$252Fsagemaker$252FTrainingJobs$3FlogStreamNameFilter$3Dtrain-1"
    )


def test_local_aws_has_no_console_to_lead_to(xcom: dict[str, Any]) -> None:
    xcom["job"] = links.thing(
        Settings.load(LOCAL), "train-1", "training", "jobs", "/aws/sagemaker/TrainingJobs"
    )
    assert links.SageMakerLink().get_link(None, ti_key=None) == ""
    assert links.LogLink().get_link(None, ti_key=None) == ""


def test_before_the_task_started_anything_there_is_no_link(xcom: dict[str, Any]) -> None:
    assert links.SageMakerLink().get_link(None, ti_key=None) == ""
    assert links.ReportLink().get_link(None, ti_key=None) == ""


def test_the_report_is_where_the_task_said(xcom: dict[str, Any]) -> None:
    xcom["return_value"] = {"report_url": "http://localhost:9000/photos/report.html"}
    assert links.ReportLink().get_link(None, ti_key=None) == "http://localhost:9000/photos/report.html"


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        (LOCAL, "http://localhost:9000/b/jobs/a%20b/report.html"),
        ({"LOCAL_AWS_URL": "http://127.0.0.1:4566"}, "http://127.0.0.1:4566/b/jobs/a%20b/report.html"),
        (AWS, "https://console.amazonaws.cn/s3/object/b?region=cn-north-1&prefix=jobs%2Fa%20b%2Freport.html"),
    ],
)
def test_a_browser_reaches_an_object(environment: dict[str, str], url: str) -> None:
    assert links.object_url(Settings.load(environment), "s3://b/jobs/a b/report.html") == url
