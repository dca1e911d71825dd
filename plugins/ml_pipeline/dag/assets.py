"""The assets that the DAGs read and write, for lineage and to start scheduled_retraining."""

from __future__ import annotations

from importlib.util import find_spec

from airflow.sdk import Asset, AssetWatcher

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.dag.versions import VersionsError
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
    """Return the team's photos, watched through SQS if ML_PIPELINE_QUEUE_URL is set.

    Raises:
        VersionsError: It is set, and this Airflow cannot acknowledge messages.
    """
    from ml_pipeline.triggers.photo_queue import PhotoQueueTrigger

    queue = watched_queue()
    if queue is None:
        return Asset(_PHOTOS)
    if find_spec("airflow.triggers.shared_stream") is None:
        raise VersionsError(
            "ML_PIPELINE_QUEUE_URL needs Airflow 3.3, whose triggers acknowledge what they stored: upgrade, or unset "
            "it and keep the schedule"
        )
    trigger = PhotoQueueTrigger(queue.url, queue.quiet_seconds, AwsAccess(queue.aws_conn_id).to_dict())
    return Asset(_PHOTOS, watchers=[AssetWatcher(name="photo-queue", trigger=trigger)])
