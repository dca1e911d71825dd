"""Model data: downloaded and unpacked into the folder that becomes /opt/ml, with the packages that its code needs."""

from __future__ import annotations

import logging
from pathlib import Path

from local_aws.context import Context
from local_aws.errors import AwsError
from local_aws.execution.images import Contract
from local_aws.gateway.json_service import Document
from local_aws.sagemaker import s3_data
from local_aws.sagemaker.archive import unpack
from local_aws.sagemaker.endpoints import toolkit
from local_aws.sagemaker.jobs.requirements import Installer, InstallFailed
from local_aws.sagemaker.models import NAME, ROLE
from local_aws.sagemaker.s3_data import DataError
from local_aws.state.beneath import remove_tree

logger = logging.getLogger(__name__)

PACKAGES = "packages"
_COMPLETE = ".complete"


def prepare(context: Context, region: str, container: Document, opt_ml: Path) -> None:
    """Unpack a container's model data into `opt_ml`/model, once: a restart finds it there.

    Raises:
        DataError: The data cannot be downloaded or unpacked, or its requirements cannot be installed.
    """
    marker = opt_ml / _COMPLETE
    if marker.exists():
        return
    remove_tree(opt_ml)
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
            _download_archive(s3, url, opt_ml, container.get(NAME, "container_1"))
    _install_requirements(context, container["Image"], opt_ml)
    marker.touch()


def _install_requirements(context: Context, uri: str, opt_ml: Path) -> None:
    """Install code/requirements.txt as AWS's images do before they serve; a server of another image decides itself."""
    if not (opt_ml / "model/code/requirements.txt").is_file():
        return
    try:
        image = context.images.require(uri, Contract.SERVER)
    except AwsError as error:
        raise DataError(error.message) from error
    if toolkit.__name__ not in image.argv:
        return
    for name in (PACKAGES, "tmp"):
        (opt_ml / name).mkdir()
    state = context.settings.state
    installer = Installer(
        interpreter=image.interpreter,
        state=state,
        folder=opt_ml,
        record=context.records / ".".join(["pip", *opt_ml.relative_to(state).parts]),
        offline=False,
        log=lambda line: logger.info("%s: %s", opt_ml.name, line.decode("utf-8", "replace")),
        code="model/code",
    )
    try:
        installer.install()
    except (InstallFailed, OSError) as error:
        raise DataError(f"The model's code/requirements.txt cannot be installed: {error}") from error


def _download_archive(s3: object, url: str, opt_ml: Path, name: str) -> None:
    archive = opt_ml / "model.tar.gz"
    bucket, key = s3_data.parse_uri(s3_data.model_uri(url))
    try:
        s3_data.download(s3, [s3_data.S3Object(bucket, key, archive.name)], archive.parent)
    except DataError as error:
        raise DataError(
            f'Failed to download model data for container "{name}" from URL: "{url}". Please ensure that there '
            "is an object located at the URL and that the role passed to CreateModel has permissions to download "
            f"the object. ({error})"
        ) from error
    unpack(archive, opt_ml / "model")
    archive.unlink()
