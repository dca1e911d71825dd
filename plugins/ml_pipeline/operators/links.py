"""Links from a task to its report and to the AWS console."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from ml_pipeline.aws.s3 import local_address, presigned, split_uri
from ml_pipeline.requests.types import Link
from ml_pipeline.settings import Settings

if TYPE_CHECKING:
    from airflow.models.taskinstancekey import TaskInstanceKey
    from airflow.sdk import BaseOperator

# XCom key of a `thing`.
LINK_KEY = "job"


def thing(settings: Settings, name: str, kind: str, console: str, log_group: str | None = None) -> Link:
    """Return the fields of an operator's links. local_aws has no console, so there is only the name.

    Args:
        settings: Settings of the pipeline; its endpoint URL tells local_aws from AWS.
        name: Name of the resource.
        kind: A `JobKind`'s value, "endpoint" or "model-package".
        console: Path of its kind in the SageMaker console, such as "jobs".
        log_group: Log group of its container, None if it has none.
    """
    if settings.local:
        return {"name": name, "kind": kind}
    return {"name": name, "kind": kind, "region": settings.region, "console": console, "log_group": log_group}


def console_domain(region: str) -> str:
    """Return the console's domain in the partition of `region`."""
    if region.startswith("cn-"):
        return "console.amazonaws.cn"
    if region.startswith("us-gov-"):
        return "console.amazonaws-us-gov.com"
    return "console.aws.amazon.com"


def job_url(region: str, path: str, name: str) -> str:
    """Return the SageMaker console's page of a job, endpoint or model package."""
    return f"https://{console_domain(region)}/sagemaker/home?region={region}#/{path}/{name}"


def log_url(region: str, group: str, prefix: str) -> str:
    """Return CloudWatch's list of the log streams of `group` that start with `prefix`."""
    # The console expects its fragment quoted twice, with $25 for %25.
    coded = quote(quote(group, safe=""), safe="").replace("%", "$")
    return (
        f"https://{console_domain(region)}/cloudwatch/home?region={region}"
        f"#logsV2:log-groups/log-group/{coded}$3FlogStreamNameFilter$3D{quote(prefix, safe='')}"
    )


def object_url(settings: Settings, uri: str) -> str:
    """Return the address that shows the object at the s3:// `uri`: local_aws serves it, AWS has a console page."""
    if settings.local:
        return local_address(settings, uri)
    bucket, key = split_uri(uri)
    domain = console_domain(settings.region)
    return f"https://{domain}/s3/object/{bucket}?region={settings.region}&prefix={quote(key, safe='')}"


class ReportLink(BaseOperatorLink):
    """The evaluation's report.html."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address from the task's result, or an empty string without one."""
        value = XCom.get_value(key="return_value", ti_key=ti_key)
        url = str(value.get("report_url", "")) if isinstance(value, dict) else ""
        # The task's signature has an end; who may see this link may see the report.
        return presigned(url.partition("?")[0]) if "X-Amz-Signature=" in url else url


class _XComLink(BaseOperatorLink):
    """A link built from the operator's XCom; empty until then, and where there is no console."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or an empty string if the task has started nothing yet."""
        value = XCom.get_value(key=LINK_KEY, ti_key=ti_key)
        return self.url(value) if isinstance(value, dict) and "console" in value else ""

    def url(self, value: dict[str, str]) -> str:
        """Return the address for the XCom's `value`."""
        raise NotImplementedError


class SageMakerLink(_XComLink):
    """The job, endpoint or model package in the SageMaker console."""

    name = "SageMaker console"

    def url(self, value: dict[str, str]) -> str:
        """See `job_url`."""
        return job_url(value["region"], value["console"], value["name"])


class LogLink(_XComLink):
    """The log streams in CloudWatch."""

    name = "CloudWatch log"

    def url(self, value: dict[str, str]) -> str:
        """See `log_url`; empty for what has no log."""
        group = value.get("log_group")
        return log_url(value["region"], group, value["name"]) if group else ""
