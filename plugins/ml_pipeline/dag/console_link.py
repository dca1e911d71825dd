"""Link every task to the console: on local_aws it is the only page, on AWS it is besides the links of the job."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.models.taskinstancekey import TaskInstanceKey
    from airflow.sdk import BaseOperator

# Page of the console that shows what the runs of a DAG are about, where they have none of their own.
_PAGES = {
    "scheduled_retraining": "data",
    "watch": "endpoints",
    "retraining_proposal": "endpoints",
    "teardown": "endpoints",
    "janitor": "endpoints",
}


def console_url(dag_id: str, run_id: str) -> str:
    """Return the address of the console's page that is about a run of the DAG; empty where the console is unknown."""
    from airflow.sdk.configuration import conf

    base = conf.get("api", "base_url", fallback="").rstrip("/")
    page = f"runs/{quote(run_id, safe='')}" if dag_id == "train_and_deploy" else _PAGES.get(dag_id, "models")
    return f"{base}/ml-pipeline/#/{page}" if base else ""


class ConsoleLink(BaseOperatorLink):
    """The page of this project's console that is about the run."""

    name = "ML pipeline"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """See `console_url`."""
        return console_url(ti_key.dag_id, ti_key.run_id)
