"""The assets that the DAGs read and write, for lineage and to start scheduled_retraining."""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.settings import watched_queue

_PHOTOS = "ml-pipeline-photos"


def photos() -> Asset:
    """Return the team's photos, watched through SQS if ML_PIPELINE_QUEUE_URL is set."""
    from ml_pipeline.triggers.photo_queue import PhotoQueueTrigger

    queue = watched_queue()
    if queue is None:
        return Asset(_PHOTOS)
    trigger = PhotoQueueTrigger(queue.url, queue.quiet_seconds, AwsAccess(queue.aws_conn_id).to_dict())
    return Asset(_PHOTOS, watchers=[AssetWatcher(name="photo-queue", trigger=trigger)])


def endpoint() -> Asset:
    """Return the endpoint that train_and_deploy brings into service."""
    return Asset("ml-pipeline-endpoint")


def looks() -> Asset:
    """Asset of the watch's findings at an endpoint; the page is in the event's task."""
    return Asset("ml-pipeline-looks")
