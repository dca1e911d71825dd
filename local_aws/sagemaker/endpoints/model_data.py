"""Model data: downloaded and unpacked into the folder that becomes /opt/ml."""

from __future__ import annotations

import shutil
from pathlib import Path

from local_aws.context import Context
from local_aws.gateway.json_service import Document
from local_aws.sagemaker import s3_data
from local_aws.sagemaker.archive import unpack
from local_aws.sagemaker.models import ROLE
from local_aws.sagemaker.s3_data import DataError

_COMPLETE = ".complete"


def prepare(context: Context, region: str, container: Document, opt_ml: Path) -> None:
    """Unpack a container's model data into `opt_ml`/model, once: a restart finds it there.

    Raises:
        DataError: The data cannot be downloaded or unpacked.
    """
    marker = opt_ml / _COMPLETE
    if marker.exists():
        return
    shutil.rmtree(opt_ml, ignore_errors=True)
    model = opt_ml / "model"
    model.mkdir(parents=True)
    (opt_ml / "output").mkdir()
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    url = container.get("ModelDataUrl") or (source or {}).get("S3Uri")
    if url:
        s3 = context.client("s3", region, container.get(ROLE, ""))
        if source and source.get("CompressionType") == "None":
            s3_data.download(s3, s3_data.list_prefix(s3, s3_data.model_uri(url)), model)
        else:
            _download_archive(s3, url, opt_ml / "model.tar.gz", model)
    marker.touch()


def _download_archive(s3: object, url: str, archive: Path, model: Path) -> None:
    bucket, key = s3_data.parse_uri(s3_data.model_uri(url))
    try:
        s3_data.download(s3, [s3_data.S3Object(bucket, key, archive.name)], archive.parent)
    except DataError as error:
        raise DataError(
            f'Failed to download model data for container "container_1" from URL: "{url}". Please ensure that there '
            "is an object located at the URL and that the role passed to CreateModel has permissions to download "
            f"the object. ({error})"
        ) from error
    unpack(archive, model)
    archive.unlink()
