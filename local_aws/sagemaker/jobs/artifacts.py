"""A training job's artifacts in S3: `<S3OutputPath>/<job>/output/model.tar.gz` and `output.tar.gz`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from local_aws.sagemaker import archive, s3_data
from local_aws.sagemaker.trees import Tree
from local_aws.sagemaker.uploads import upload_tree
from local_aws.state.resources import Document


def upload(s3: Any, output: Document, job: str, trees: Sequence[Tree], packed: Path) -> str:
    """Upload the hosts' `trees` as one archive named like `packed`.

    With CompressionType NONE the files are uploaded as they are, under the archive's name without its suffix. The first
    host wins on equal names.

    Returns:
        The URI of the archive or prefix.

    Raises:
        DataError: The upload failed.
    """
    bucket, prefix = s3_data.parse_uri(output["S3OutputPath"])
    key = s3_data.join(prefix, job, "output", packed.name)
    if output.get("CompressionType") != "NONE":
        archive.pack(trees, packed)
        with packed.open("rb") as file:
            s3_data.upload_file(s3, file, packed.name, bucket, key)
        return f"s3://{bucket}/{key}"
    uri = f"s3://{bucket}/{key.removesuffix('.tar.gz')}/"
    for tree in reversed(trees):
        upload_tree(s3, tree, uri)
    return uri
