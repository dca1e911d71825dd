"""The plugin that Airflow loads from this package by entry point."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

# Distribution -> (the first version that works, the first that is not known to; None: no bound).
SUPPORTED: dict[str, tuple[str, str | None]] = {
    "apache-airflow": ("3.2.1", "3.5"),
    "apache-airflow-providers-amazon": ("9.34", None),
}


class VersionsError(ImportError):
    """A package is outside its range; the message names the range and the fix."""


def check_versions(installed: Mapping[str, str] | None = None) -> None:
    """Refuse an Airflow or a provider outside its range, instead of failing at some import of the DAGs.

    Args:
        installed: Versions by distribution; None: those of this environment.

    Raises:
        VersionsError: One is outside its range.
    """
    from packaging.version import Version

    for name, (first, beyond) in SUPPORTED.items():
        version = Version(installed[name] if installed is not None else metadata.version(name))
        if version < Version(first) or (beyond and version >= Version(beyond)):
            wanted = f"{name}>={first}" + (f",<{beyond}" if beyond else "")
            raise VersionsError(
                f'ml-pipeline works with {wanted} and {version} is here: pip install "{wanted}"'
            )


# Before the imports that another Airflow fails at.
check_versions()

from ml_pipeline.console import PREFIX, Console  # noqa: E402
from ml_pipeline.dag.console_link import ConsoleLink  # noqa: E402
from ml_pipeline.dag.notes import NoteWriter  # noqa: E402
from ml_pipeline.operators.links import LogLink, ReportLink, SageMakerLink  # noqa: E402


class MlPipelinePlugin(AirflowPlugin):
    """Register the console, the writer of notes, and the operator links so that the api-server may show them."""

    name = "ml_pipeline"
    operator_extra_links: ClassVar[list[object]] = [SageMakerLink(), LogLink(), ReportLink(), ConsoleLink()]
    listeners: ClassVar[list[object]] = [NoteWriter()]
    fastapi_apps: ClassVar[list[dict[str, Any]]] = [
        {"app": Console(), "url_prefix": PREFIX, "name": "ML pipeline console"}
    ]
    external_views: ClassVar[list[dict[str, Any]]] = [
        {
            "name": "ML pipeline",
            "href": f"{PREFIX.removeprefix('/')}/",
            "destination": "nav",
            "category": "browse",
            "url_route": "ml-pipeline",
        }
    ]
