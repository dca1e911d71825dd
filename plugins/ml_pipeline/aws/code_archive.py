"""The code of jobs as `code/<sha256>.tar.gz`: the same sources give the same bytes, hence the same key."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ml_pipeline.aws.clients import Client

# SageMaker's toolkit and torchrun start a .py at the root of the archive, not a module of a package.
SCRIPTS = {
    f"{name}.py": f'import runpy\n\nrunpy.run_module("model_code.{name}", run_name="__main__")\n'
    for name in ("train", "tune")
}
_SUFFIXES = {".py", ".json", ".html", ".css", ".js", ".toml"}


@dataclass(frozen=True)
class CodeArchive:
    """A packed archive: its bytes, and their SHA-256."""

    body: bytes
    sha256: str

    @property
    def key(self) -> str:
        """Key of the archive in the bucket."""
        return f"code/{self.sha256}.tar.gz"


@cache
def build() -> CodeArchive:
    """Pack the installed `model_code` and the scripts that start it.

    Raises:
        RuntimeError: `model_code` is not installed with Airflow.
    """
    spec = importlib.util.find_spec("model_code")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(
            "the package model_code is not installed here; run `pip install -e .` in the project's root"
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    members = {name: text.encode() for name, text in SCRIPTS.items()}
    members["on_instance.py"] = Path(__file__).with_name("on_instance.py").read_bytes()
    for path in package.rglob("*"):
        if path.is_file() and path.suffix in _SUFFIXES and "__pycache__" not in path.parts:
            members[f"model_code/{path.relative_to(package).as_posix()}"] = path.read_bytes()
    body = pack(members)
    return CodeArchive(body, hashlib.sha256(body).hexdigest())


def pack(members: dict[str, bytes]) -> bytes:
    """Pack `members` into a tar.gz that does not depend on times, owners or order."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(members):
            info = tarfile.TarInfo(name)
            info.size = len(members[name])
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(members[name]))
    return gzip.compress(raw.getvalue(), compresslevel=6, mtime=0)


def publish(s3: Client, bucket: str) -> CodeArchive:
    """Put the archive into `bucket` unless it is there."""
    from botocore.exceptions import ClientError

    archive = build()
    try:
        s3.head_object(Bucket=bucket, Key=archive.key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        s3.put_object(Bucket=bucket, Key=archive.key, Body=archive.body)
    return archive
