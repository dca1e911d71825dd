"""Run a training job on an EC2 instance as SageMaker would: channels in, the same script, model.tar.gz out.

It is part of the code archive and stands alone: the standard library and boto3, nothing of this package.
`python on_instance.py s3://bucket/jobs/<name>/job.json`, from the folder that holds the unpacked code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def run(s3: Any, job_uri: str, work: Path) -> str:
    """Run the job that `job_uri` describes inside `work`, and return the address of the model.

    job.json: `{"script", "hyperparameters", "channels": [{"name", "uri", "manifest"}], "model_uri"}`.

    Raises:
        subprocess.CalledProcessError: The script failed.
    """
    job = json.loads(_read(s3, job_uri))
    channels = {}
    for channel in job["channels"]:
        folder = work / "input" / "data" / channel["name"]
        folder.mkdir(parents=True, exist_ok=True)
        fetch(s3, channel, folder)
        channels[channel["name"]] = folder
    model = work / "model"
    model.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "SM_MODEL_DIR": str(model),
        "SM_HOSTS": '["algo-1"]',
        "SM_CURRENT_HOST": "algo-1",
        **{f"SM_CHANNEL_{name.upper()}": str(folder) for name, folder in channels.items()},
    }
    arguments = [part for name, value in job["hyperparameters"].items() for part in (f"--{name}", value)]
    subprocess.run([sys.executable, job["script"], *arguments], env=environment, check=True)
    archive = work / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(model.iterdir()):
            tar.add(path, path.name)
    bucket, key = split(job["model_uri"])
    s3.upload_file(str(archive), bucket, key)
    return str(job["model_uri"])


def fetch(s3: Any, channel: dict[str, Any], folder: Path) -> None:
    """Download a channel: the objects under a prefix, or those that a ManifestFile lists."""
    for uri in objects(s3, channel):
        bucket, key = split(uri)
        target = folder / key.rsplit("/", 1)[-1]
        if not target.exists():
            partial = target.with_name(f".{target.name}.partial")
            s3.download_file(bucket, key, str(partial))
            partial.replace(target)


def objects(s3: Any, channel: dict[str, Any]) -> Iterator[str]:
    """Yield the addresses of a channel's objects."""
    if channel["manifest"]:
        head, *names = json.loads(_read(s3, channel["uri"]))
        yield from (head["prefix"] + name for name in names)
        return
    bucket, prefix = split(channel["uri"])
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from (f"s3://{bucket}/{item['Key']}" for item in page.get("Contents", []))


def split(uri: str) -> tuple[str, str]:
    """Split an s3:// address into bucket and key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _read(s3: Any, uri: str) -> bytes:
    bucket, key = split(uri)
    body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def main() -> None:
    """Run the job named on the command line."""
    import boto3

    print(f"model={run(boto3.client('s3'), sys.argv[1], Path.cwd())}", flush=True)


if __name__ == "__main__":
    main()
