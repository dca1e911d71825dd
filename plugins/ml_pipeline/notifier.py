"""The former place of `PipelineNotifier`, whose path deadlines stored by earlier releases name."""

from ml_pipeline.dag.notifier import PipelineNotifier

__all__ = ["PipelineNotifier"]
