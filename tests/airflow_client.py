"""A client of Airflow for a machine that many tests share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from launcher.airflow_api import AirflowClient
from launcher.run import patiently
from launcher.settings import Secrets, Settings


class PatientClient(AirflowClient):
    """Asks again what an api-server on a full machine did not answer in time.

    A GET only: Airflow may have heard a POST whose answer was lost.
    """

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        ask = partial(super().call, method, path, **arguments)
        return patiently(ask) if method == "GET" else ask()


def connect(settings: Settings) -> PatientClient:
    """Log in as admin, as `launcher.run.connect` does."""
    return PatientClient(settings.airflow_url, "admin", Secrets.load_or_create(settings.home).admin_password)


def scheduler_has_looked(client: AirflowClient) -> Callable[[], bool]:
    """Return what is true once the scheduler knows of every process that has ended by now.

    A deferred or asking task that goes on before that is taken for killed, and tried again (Airflow 3.3.2).
    """
    beats: set[str] = set()

    def looked() -> bool:
        health = client.call("GET", "monitor/health")
        beats.add(health["scheduler"]["latest_scheduler_heartbeat"])
        return len(beats) > 2

    return looked
