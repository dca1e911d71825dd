"""Forget photos: `python -m ml_pipeline.watching.forget --help`. For an administrator; the pipeline cannot delete."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client, command_client
from ml_pipeline.dataset.place import ConcurrentUpload
from ml_pipeline.registry import packages as registry
from ml_pipeline.settings import Settings, SettingsError
from ml_pipeline.watching import endpoints
from ml_pipeline.watching.forget.sweep import forget


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ml_pipeline.watching.forget",
        description="Take photos out of the bucket: data sets, embeddings, captures, reviews, predictions, pages, "
        "golden inputs of models, in every version of every object. A list keeps them from being imported again. "
        "Reads the whole bucket; run it with the role <project>-forget, while no run is under way.",
    )
    parser.add_argument("photos", nargs="+", help="a file, or the SHA-256 of its bytes")
    parser.add_argument("--yes", action="store_true", help="do it; it cannot be undone")
    arguments = parser.parse_args(argv)
    try:
        photos = frozenset(map(_sha256, arguments.photos))
        if not arguments.yes:
            raise ValueError(f"{len(photos)} photos would be deleted for good: say --yes")
        settings = Settings.load()
        s3, sagemaker = (command_client(settings, service) for service in ("s3", "sagemaker"))
        swept = forget(s3, settings.bucket, photos)
    except (ConcurrentUpload, OSError, SettingsError, ValueError) as error:
        print(f"forget: {error}", file=sys.stderr)
        return 1
    print(f"{len(swept.deleted)} objects deleted, {len(swept.rewritten)} written again without the photos")
    for line in trained_on(s3, sagemaker, settings.bucket):
        print(line)
    return 0


def trained_on(s3: Client, sagemaker: Client, bucket: str) -> Iterator[str]:
    """Yield a line for each registered model whose data set version is gone because a photo in it was forgotten."""
    serving = {found.model_uri: found.name for found in endpoints.watched(sagemaker)}
    for name in sorted(objects.folders(s3, f"s3://{bucket}/datasets/")):
        there = set(objects.folders(s3, f"s3://{bucket}/datasets/{name}/versions/"))
        for package in registry.packages(sagemaker, name):
            if package.metadata.get("dataset_version") in there:
                continue
            where = serving.get(package.model_uri)
            served = (
                f", endpoint {where} serves it and keeps its own copy until it is deployed again"
                if where
                else ""
            )
            yield f"{package.arn} ({package.model_uri}) was made from photos that are gone{served}: train again"


def _sha256(photo: str) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", photo):
        return photo
    return hashlib.sha256(Path(photo).read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
