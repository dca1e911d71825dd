"""The assets that the DAGs read and write, for lineage and to start scheduled_retraining."""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.settings import watched_queue

_PHOTOS = "ml-pipeline-photos"
PLANS = Asset("ml-pipeline-plans")
DATASETS = Asset("ml-pipeline-datasets")
EVALUATIONS = Asset("ml-pipeline-evaluations")
MODELS = Asset("ml-pipeline-models")
ENDPOINT = Asset("ml-pipeline-endpoint")
BILLS = Asset("ml-pipeline-bills")
LOOKS = Asset("ml-pipeline-looks")
PREDICTIONS = Asset("ml-pipeline-predictions")
LEFTOVERS = Asset("ml-pipeline-leftovers")


def photos() -> Asset:
    """Return the team's photos, watched through SQS if ML_PIPELINE_QUEUE_URL is set."""
    from ml_pipeline.triggers.photo_queue import PhotoQueueTrigger

    queue = watched_queue()
    if queue is None:
        return Asset(_PHOTOS)
    trigger = PhotoQueueTrigger(queue.url, queue.quiet_seconds, AwsAccess(queue.aws_conn_id).to_dict())
    return Asset(_PHOTOS, watchers=[AssetWatcher(name="photo-queue", trigger=trigger)])
