"""CreateTransformJob: one photo per request, one answer per file."""

from __future__ import annotations

from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.network import OPEN, Network
from ml_pipeline.requests.types import Document, Tags

# Largest photo. SageMaker fails the job for a larger one.
MAX_PAYLOAD_MB = 20


def transform_job(
    name: str,
    model_name: str,
    manifest_uri: str,
    output_uri: str,
    compute: Compute,
    tags: Tags = (),
    network: Network = OPEN,
) -> Document:
    """Build the request of CreateTransformJob over the photos that a ManifestFile lists.

    Not over a whole prefix: a single object that is not a photo would fail the job. The answer for `photo.jpg` is
    `<output_uri>/photo.jpg.out`.
    """
    return {
        "TransformJobName": name,
        "ModelName": model_name,
        "BatchStrategy": "SingleRecord",
        "MaxPayloadInMB": MAX_PAYLOAD_MB,
        # MaxConcurrentTransforms x MaxPayloadInMB may not exceed 100 MB.
        "MaxConcurrentTransforms": 4,
        # A photo that cannot be read becomes an answer with its reason; a status would fail the whole job.
        "Environment": {"SERVE_REFUSALS": "row"},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": manifest_uri}},
            "ContentType": "application/x-image",
            "SplitType": "None",
            "CompressionType": "None",
        },
        "TransformOutput": {"S3OutputPath": output_uri, "Accept": "application/json", "AssembleWith": "None"},
        "TransformResources": {
            "InstanceType": compute.instance_type,
            "InstanceCount": compute.instance_count,
            **network.volume(compute.instance_type),
        },
        "Tags": list(tags),
    }
