"""CreateTransformJob: one photo per request, one answer per file."""

from __future__ import annotations

from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.network import OPEN, Network
from ml_pipeline.requests.types import Document, Tags


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

    Not over a whole prefix: a single object that is no photo would fail the job. The answer for `photo.jpg` is
    `<output_uri>/photo.jpg.out`.
    """
    return {
        "TransformJobName": name,
        "ModelName": model_name,
        "BatchStrategy": "SingleRecord",
        "MaxPayloadInMB": 20,
        # MaxConcurrentTransforms x MaxPayloadInMB may not exceed 100 MB.
        "MaxConcurrentTransforms": 4,
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
