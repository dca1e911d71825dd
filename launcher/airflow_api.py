"""A small client of Airflow's REST API v2: what a run needs, over HTTP like any other client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

TIMEOUT_SECONDS = 30.0


class AirflowError(RuntimeError):
    """Airflow refused a request; the message carries its reason, `status` the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AirflowClient:
    """Talks to one Airflow. Fetches a new token when the old one has run out.

    url: address of the api-server, without a path.
    """

    def __init__(self, url: str, username: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._credentials = {"username": username, "password": password}
        self._session = requests.Session()

    def _login(self) -> None:
        answer = self._session.post(f"{self.url}/auth/token", json=self._credentials, timeout=TIMEOUT_SECONDS)
        if answer.status_code not in (200, 201):
            raise AirflowError(
                f"Airflow refused the login of {self._credentials['username']}: {answer.text}",
                answer.status_code,
            )
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Call a path under /api/v2; return the decoded JSON. Raises AirflowError with Airflow's own reason."""
        if "Authorization" not in self._session.headers:
            self._login()
        url = f"{self.url}/api/v2/{path}"
        answer = self._session.request(method, url, timeout=TIMEOUT_SECONDS, **arguments)
        if answer.status_code == 401:
            self._login()
            answer = self._session.request(method, url, timeout=TIMEOUT_SECONDS, **arguments)
        if not answer.ok:
            raise AirflowError(f"{method} {path}: {answer.status_code} {_reason(answer)}", answer.status_code)
        return answer.json() if answer.content else None

    def health(self) -> dict[str, str]:
        """Component -> "healthy", "unhealthy" or "missing"."""
        parts = self.call("GET", "monitor/health")
        return {name: (part or {}).get("status") or "missing" for name, part in parts.items()}

    def dag_exists(self, dag_id: str) -> bool:
        """Return true once Airflow has parsed the DAG."""
        try:
            self.call("GET", f"dags/{dag_id}")
        except AirflowError as error:
            if error.status == 404:
                return False
            raise
        return True

    def param_names(self, dag_id: str) -> list[str]:
        """Return the names of the DAG's params."""
        return list(self.call("GET", f"dags/{dag_id}/details")["params"])

    def import_errors(self) -> list[str]:
        """Return the stack traces of DAG files that cannot be imported."""
        return [row["stack_trace"] for row in self.call("GET", "importErrors")["import_errors"]]

    def trigger(self, dag_id: str, conf: Mapping[str, object]) -> str:
        """Unpause the DAG and start a run; its id."""
        self.call("PATCH", f"dags/{dag_id}", json={"is_paused": False})
        run = self.call("POST", f"dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": dict(conf)})
        return str(run["dag_run_id"])

    def active_runs(self) -> int:
        """Count the runs of any DAG that have not ended."""
        states = {"state": ["running", "queued"], "limit": 1}
        return int(self.call("GET", "dags/~/dagRuns", params=states)["total_entries"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run, such as "running"."""
        return str(self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run, at most 100."""
        answer = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 100})
        return list(answer["task_instances"])

    def log(self, dag_id: str, run_id: str, task: Mapping[str, Any]) -> list[str]:
        """Return the log lines of a task instance's latest try."""
        return [line for part in self._log(dag_id, run_id, task) for line in _log_lines(part)]

    def errors(self, dag_id: str, run_id: str, task: Mapping[str, Any]) -> list[str]:
        """Return the exceptions that ended a task instance's latest try, innermost cause last."""
        return [line for part in self._log(dag_id, run_id, task) for line in _errors(part)]

    def _log(self, dag_id: str, run_id: str, task: Mapping[str, Any]) -> list[object]:
        attempt = max(task["try_number"], 1)
        answer = self.call(
            "GET",
            f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task['task_id']}/logs/{attempt}",
            params={"map_index": task.get("map_index", -1), "full_content": "true"},
            headers={"Accept": "application/json"},
        )
        return list(answer["content"])

    def xcom(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        """Return the task's return value, or None when it left none; of a mapped task, the one at `map_index`."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        try:
            given = {"deserialize": "false", "stringify": "false", "map_index": map_index}
            return self.call("GET", path, params=given)["value"]
        except AirflowError as error:
            if error.status == 404:
                return None
            raise


def _reason(answer: requests.Response) -> str:
    try:
        return str(answer.json().get("detail", answer.text))
    except (ValueError, AttributeError):
        return answer.text[:500]


def _log_lines(part: object) -> list[str]:
    """Return a structured log entry as text: its event, then its error details, innermost cause last."""
    if not isinstance(part, dict):
        return [str(part)]
    return [str(part.get("event", "")), *_errors(part)]


def _errors(part: object) -> list[str]:
    found = (part.get("error_detail") if isinstance(part, dict) else None) or []
    return [f"{error.get('exc_type')}: {error.get('exc_value')}" for error in found]
