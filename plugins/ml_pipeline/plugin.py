"""The plugin that Airflow loads from this package by entry point."""

from __future__ import annotations

import importlib
import os
import pkgutil
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from ml_pipeline.dag.versions import check_versions

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

    @classmethod
    def on_load(cls, *args: object, **kwargs: object) -> None:
        """Load what tasks need, in the process that forks them."""
        # Not again in the tasks, which load the plugins, too.
        if os.environ.pop("ML_PIPELINE_PRELOAD", ""):
            from ml_pipeline import dag, operators
            from ml_pipeline.aws import hook

            for package in (dag, operators):
                for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                    importlib.import_module(module.name)
            hook.preload()
