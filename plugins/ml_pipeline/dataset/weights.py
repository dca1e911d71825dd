"""Bring a backbone's weights from a file, an address or torchvision to S3: the only place that downloads any."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.requests.types import StoredWeights, Taught

if TYPE_CHECKING:
    from model_code.data.download import Checksum

# Importing torchvision takes seconds, on a busy laptop half a minute.
_ASK_SECONDS = 180.0
_WAYS = "give a state_dict file, an s3://, https:// or file:// address, 'imagenet', or 'none'"

DEFAULT_ARCHITECTURE = "mobilenet_v2"
Progress = Callable[[int, int], None]


class WeightsError(ValueError):
    """Weights that cannot be obtained. The message is one line that names the fix."""


def store_weights(
    s3: Client, bucket: str, weights: str, architecture: str, progress: Progress | None = None
) -> StoredWeights:
    """Put weights to `weights/<sha256>`, unless they are there already.

    Args:
        s3: A boto3 client.
        bucket: Name of the project's bucket.
        weights: A file, an s3://, http(s):// or file:// address, "imagenet" (the library's best for the
            architecture), the name of torchvision weights (IMAGENET1K_V1), or "none". An http(s) address may end
            in `#sha256=<hex>`, which is checked.
        architecture: Torchvision's name, or `timm:` and timm's; it only matters for weights by name.
        progress: Called with (bytes so far, bytes in all or 0).

    Returns:
        JSON-ready: uri and sha256 (None for "none"), bytes, source, uploaded (bytes sent to S3).

    Raises:
        WeightsError: The weights cannot be fetched or read.
    """
    wanted = weights.strip()
    if wanted.lower() in ("none", ""):
        return {"uri": None, "sha256": None, "bytes": 0, "source": "none", "uploaded": 0}
    if re.fullmatch(r"imagenet|default|IMAGENET1K_\w+", wanted, re.IGNORECASE):
        return _store_named(s3, bucket, wanted, architecture, progress)
    with tempfile.TemporaryDirectory(prefix="ml-pipeline-weights-") as folder:
        path = _fetch(s3, wanted, Path(folder, "weights"), progress)
        return _store(s3, bucket, path, wanted.split("#")[0])


def _store_named(
    s3: Client, bucket: str, name: str, architecture: str, progress: Progress | None
) -> StoredWeights:
    member = "DEFAULT" if name.lower() in ("imagenet", "default") else name.upper()
    url = weights_url(architecture, member)
    # The file behind such an address never changes, so a second run needs no network.
    index = f"s3://{bucket}/weights/by-address/{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"
    if objects.exists(s3, index):
        known: StoredWeights = objects.read_json(s3, index)
        if objects.exists(s3, str(known["uri"])):
            return {**known, "uploaded": 0}
    with tempfile.TemporaryDirectory(prefix="ml-pipeline-weights-") as folder:
        path = Path(folder, "weights")
        _download(url, path, file_name_checksum(url), progress)
        stored = _store(s3, bucket, path, url)
    objects.write_json(s3, index, stored)
    return stored


def teacher_of(teacher: str | None) -> tuple[str, str]:
    """Return architecture and weights of `<architecture>[=<weights>]`; "" and "none" without a teacher.

    A registered model is named by its ARN, which then stands for its architecture.
    """
    architecture, _, weights = (teacher or "").strip().partition("=")
    return architecture, weights or ("imagenet" if architecture else "none")


def store_model(s3: Client, bucket: str, model_uri: str) -> Taught:
    """Put the network of a `model.tar.gz` to `weights/<sha256>`, unless it is there already.

    Raises:
        WeightsError: The model cannot be fetched or read.
    """
    from model_code.bundle.archive import SAFETENSORS, Bundle, BundleError

    with tempfile.TemporaryDirectory(prefix="ml-pipeline-weights-") as folder:
        archive = _from_s3(s3, model_uri, Path(folder, "model.tar.gz"))
        try:
            with Bundle.open(archive) as bundle:
                stored = _store(s3, bucket, bundle.file(SAFETENSORS), model_uri)
                return {**stored, "architecture": bundle.card.architecture}
        except BundleError as error:
            raise WeightsError(f"model {model_uri}: {error}") from error


def check_architecture(architecture: str) -> None:
    """Refuse an architecture that neither torchvision nor timm has.

    Raises:
        WeightsError: It is unknown; the message names the nearest ones.
    """
    from model_code.hyperparameters.architectures import TIMM, timm_recipe

    if architecture.startswith(TIMM):
        try:
            timm_recipe(architecture)
        except ValueError as error:
            raise WeightsError(str(error)) from error
        return
    # Asking takes seconds, and the default needs no question.
    if architecture != DEFAULT_ARCHITECTURE:
        weights_url(architecture, "DEFAULT")


def weights_url(architecture: str, name: str) -> str:
    """Return the address of a library's weights. A process of its own is asked: this one must not load torch.

    Raises:
        WeightsError: For an unknown architecture or name.
    """
    command = [sys.executable, "-m", "model_code.networks.pretrained", architecture, name]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise WeightsError(
            f"torch did not say where the weights of {architecture} are within {_ASK_SECONDS:.0f} s"
        ) from error
    if answer.returncode != 0:
        lines = answer.stderr.strip().splitlines() or ["no answer"]
        raise WeightsError(lines[-1].removeprefix("error: "))
    return answer.stdout.strip().splitlines()[-1]


def file_name_checksum(url: str) -> Checksum | None:
    """Return the start of the SHA-256 that torch.hub's file names carry: `mobilenet_v2-7ebf99e0.pth`."""
    from model_code.data.download import Checksum

    match = re.search(r"-([0-9a-f]{8,64})\.\w+$", urlsplit(url).path)
    return Checksum("sha256", match[1]) if match else None


def _fetch(s3: Client, wanted: str, path: Path, progress: Progress | None) -> Path:
    """Return the weights as a local file: `path`, or the file itself where it is local already."""
    from model_code.data.download import Checksum

    parts = urlsplit(wanted)
    if parts.scheme in ("http", "https"):
        digits = parts.fragment.removeprefix("sha256=")
        try:
            checksum = Checksum("sha256", digits.lower()) if digits else None
        except ValueError as error:
            raise WeightsError(f"{wanted}: write the checksum as #sha256=<hex>") from error
        _download(wanted.split("#")[0], path, checksum, progress)
        return path
    if parts.scheme == "s3":
        return _from_s3(s3, wanted, path)
    if parts.scheme not in ("", "file"):
        raise WeightsError(f"weights {wanted!r}: no such kind of address; {_WAYS}")
    local = Path(unquote(parts.path)) if parts.scheme == "file" else Path(wanted).expanduser()
    if not local.is_file():
        raise WeightsError(f"weights {wanted!r}: there is no such file; {_WAYS}")
    return local


def _from_s3(s3: Client, uri: str, path: Path) -> Path:
    from botocore.exceptions import ClientError

    bucket, key = objects.split_uri(uri)
    try:
        s3.download_file(bucket, key, str(path))
    except ClientError as error:
        raise WeightsError(f"weights {uri}: {error.response['Error'].get('Message', error)}") from error
    return path


def _download(url: str, path: Path, checksum: Checksum | None, progress: Progress | None) -> None:
    from model_code.data.download import DownloadError, download

    try:
        download(url, path, checksum=checksum, progress=progress)
    except DownloadError as error:
        raise WeightsError(f"weights {error}; without a network, {_WAYS}") from error


def _store(s3: Client, bucket: str, path: Path, source: str) -> StoredWeights:
    _check_kind(path, source)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    uri = f"s3://{bucket}/weights/{sha256}"
    uploaded = 0
    if not objects.exists(s3, uri):
        s3.upload_file(str(path), bucket, f"weights/{sha256}")
        uploaded = size
    return {"uri": uri, "sha256": sha256, "bytes": size, "source": source, "uploaded": uploaded}


def _check_kind(path: Path, source: str) -> None:
    """Refuse a file that cannot hold weights (a web page, a photo) before a paid job does."""
    with path.open("rb") as file:
        head = file.read(9)
    zip_file, pickle_file, safetensors_file = (
        head.startswith(b"PK"),
        head.startswith(b"\x80"),
        head[8:9] == b"{",
    )
    if not (zip_file or pickle_file or safetensors_file):
        raise WeightsError(
            f"weights {source}: this is neither a torch state_dict file nor safetensors; {_WAYS}"
        )
