"""Photos to a data set version in S3: only what the newest version lacks is read and uploaded."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_pipeline.aws.clients import Client
    from model_code.data.records import Fractions
    from model_code.data.versions.make import Made, Progress

# Against other uploads of the same data set: each loses only to one that has finished.
_ATTEMPTS = 5


def upload(
    s3: Client,
    bucket: str,
    name: str,
    data: str,
    *,
    seed: int = 0,
    fractions: Fractions | None = None,
    group_lookalikes: bool = True,
    force: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Made:
    """Make the version of data set `name` that holds the photos in `data`, with the log of corrections applied.

    See `model_code.data.versions.make`. Where another upload of this data set finishes first, as with two runs started
    together, this one begins again from its version and reads only what differs.

    Args:
        s3: A boto3 client.
        bucket: The bucket of the data set.
        name: Name of the data set.
        data: A local folder or an s3:// prefix with one folder per class, or a table of photos and labels.
        seed: Shuffles the split of a new data set; an existing one keeps its splits.
        fractions: Of validation and test.
        group_lookalikes: Keep photos that show the same picture in one split.
        force: Read every file again.
        workers: Threads that decode; default: this machine's cores.
        progress: Called with (done, total, unit) now and then.

    Raises:
        DatasetError: No data set can be made of `data`; the message names the fix.
        ConcurrentUpload: Other uploads of this data set finished first, again and again.
    """
    from ml_pipeline.dataset import corrections, reviewed, sources
    from ml_pipeline.dataset.place import Place
    from model_code.data.records import Fractions
    from model_code.data.source import DatasetError, Folder
    from model_code.data.versions.corrections import correct
    from model_code.data.versions.make import Options, make
    from model_code.data.versions.store import ConcurrentUpload, check_name

    check_name(name)
    if not data.strip():
        # As a path it would be the working directory.
        raise DatasetError(
            "`data` is empty: give a folder or an s3:// prefix with one folder of photos per class; for scheduled "
            "runs, in ML_PIPELINE_DEFAULTS"
        )
    options = Options(seed, fractions or Fractions(), group_lookalikes, force, workers)
    apply = correct(corrections.load(s3, bucket, name).decisions(), reviewed.denied(s3, bucket, name))
    with tempfile.TemporaryDirectory(prefix="ml-pipeline-upload-") as folder:
        source = sources.source_of(s3, data)
        if not isinstance(source, Folder):
            source = sources.Spooled(source, Path(folder))
        source = reviewed.with_reviewed(s3, bucket, name, source)
        attempt = partial(make, Place(s3, bucket, name), source, options, apply, progress)
        for _ in range(_ATTEMPTS - 1):
            with suppress(ConcurrentUpload):
                return attempt()
        return attempt()
