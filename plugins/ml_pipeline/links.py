"""Links from a task to the AWS console."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

# The XCom under which an operator leaves what its links need: {"name", "kind", "region"}.
LINK_KEY = "job"


def console_domain(region: str) -> str:
    """The console's domain in the partition of `region`."""
    if region.startswith("cn-"):
        return "console.amazonaws.cn"
    if region.startswith("us-gov-"):
        return "console.amazonaws-us-gov.com"
    return "console.aws.amazon.com"


def job_url(region: str, path: str, name: str) -> str:
    """The SageMaker console's page of a job, endpoint or model package."""
    return f"https://{console_domain(region)}/sagemaker/home?region={region}#/{path}/{name}"


def log_url(region: str, group: str, prefix: str) -> str:
    """CloudWatch's list of the log streams of `group` that start with `prefix`."""
    # The console wants its fragment quoted twice, with $25 for %25.
    coded = quote(quote(group, safe=""), safe="").replace("%", "$")
    return (
        f"https://{console_domain(region)}/cloudwatch/home?region={region}"
        f"#logsV2:log-groups/log-group/{coded}$3FlogStreamNameFilter$3D{quote(prefix, safe='')}"
    )


class _XComLink(BaseOperatorLink):
    """A link built from what the operator left in XCom; empty until then."""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address, or an empty string when the task has started nothing yet."""
        value = XCom.get_value(key=LINK_KEY, ti_key=ti_key)
        return self.url(value) if isinstance(value, dict) else ""

    def url(self, value: dict[str, str]) -> str:
        """The address for the XCom's `value`."""
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
