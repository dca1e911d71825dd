"""The policies of each role that infra/ creates."""

from __future__ import annotations

from typing import Any

from tests.infra.template import Template

TEMPLATES = {
    "Airflow": "airflow", "ApiServer": "airflow", "Job": "jobs", "Instance": "jobs", "Forget": "forget",
}  # fmt: skip
AIRFLOW, API_SERVER, JOB, INSTANCE_ROLE, FORGET = (
    Template(file).role_policies(role) for role, file in TEMPLATES.items()
)
POLICIES = {
    "airflow": AIRFLOW, "api-server": API_SERVER, "job": JOB, "instance": INSTANCE_ROLE, "forget": FORGET,
}  # fmt: skip


def granted(policies: list[dict[str, Any]]) -> set[str]:
    return {
        action
        for policy in policies
        for statement in policy["Statement"]
        if statement["Effect"] == "Allow"
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
