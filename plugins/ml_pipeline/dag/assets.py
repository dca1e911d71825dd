"""What the DAGs read and write, as Airflow assets: lineage, and what wakes scheduled_retraining up."""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.settings import watched_queue

_PHOTOS = "ml-pipeline-photos"


def photos() -> Asset:
    """The team's photos. Watched through SQS where ML_PIPELINE_QUEUE_URL is set."""
    from ml_pipeline.triggers.photo_queue import PhotoQueueTrigger

    queue = watched_queue()
    if queue is None:
        return Asset(_PHOTOS)
    trigger = PhotoQueueTrigger(queue.url, queue.quiet_seconds, AwsAccess(queue.aws_conn_id).to_dict())
    return Asset(_PHOTOS, watchers=[AssetWatcher(name="photo-queue", trigger=trigger)])


def endpoint() -> Asset:
    """What train_and_deploy brings into service."""
    return Asset("ml-pipeline-endpoint")
