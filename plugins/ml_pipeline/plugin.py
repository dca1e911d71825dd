"""What Airflow loads from this package by entry point."""

from __future__ import annotations

from typing import ClassVar

from airflow.plugins_manager import AirflowPlugin

from ml_pipeline.operators.links import LogLink, ReportLink, SageMakerLink


class MlPipelinePlugin(AirflowPlugin):
    """Registers the operator links, so that the API server may show them."""

    name = "ml_pipeline"
    operator_extra_links: ClassVar[list[object]] = [SageMakerLink(), LogLink(), ReportLink()]
