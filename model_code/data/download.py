"""Download one file over HTTP with time-outs, a checksum and a size limit, completely or not at all."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests

CONNECT_SECONDS = 5.0
STALL_SECONDS = 20.0
# Ends downloads from a server that sends a byte now and then and so never stalls.
TOTAL_SECONDS = 3600.0
MAX_BYTES = 8 * 2**30
_CHUNK = 2**18

Progress = Callable[[int, int], None]


class DownloadError(OSError):
    """A file that could not be downloaded; the message is one line that says why."""


@dataclass(frozen=True)
class Checksum:
    """An expected digest, or the first digits of one: `Checksum.parse("sha256:7ebf99e0")`."""

    algorithm: str
    digits: str

    def __post_init__(self) -> None:
        if (
            self.algorithm not in ("sha256", "md5")
            or not self.digits
            or set(self.digits) - set("0123456789abcdef")
        ):
            raise ValueError(
                f"write a checksum as sha256:<hex> or md5:<hex>, not {self.algorithm}:{self.digits}"
            )

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """From `algorithm:hex`.

        Raises:
            ValueError: The text has another form.
        """
        algorithm, _, digits = text.partition(":")
        return cls(algorithm.strip(), digits.strip().lower())


def download(
    url: str,
    path: Path,
    *,
    checksum: Checksum | None = None,
    progress: Progress | None = None,
    connect_seconds: float = CONNECT_SECONDS,
    stall_seconds: float = STALL_SECONDS,
    total_seconds: float = TOTAL_SECONDS,
    max_bytes: int = MAX_BYTES,
) -> str:
    """Download `url` to `path`; the file appears only when it is complete and its checksum matches.

    Args:
        url: Address of the file.
        path: Where to store it.
        checksum: Expected digest.
        progress: Called with (bytes so far, total bytes or 0 where the server does not say).
        connect_seconds: Time-out of the connection.
        stall_seconds: Longest wait for the next bytes.
        total_seconds: Longest duration of the download.
        max_bytes: Largest size.

    Returns:
        The file's SHA-256.

    Raises:
        DownloadError: On any failure; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".download-", delete=False) as file:
        temporary = Path(file.name)
    try:
        _fetch(url, temporary, progress, (connect_seconds, stall_seconds), total_seconds, max_bytes)
        if checksum is not None:
            _check(url, temporary, checksum)
        sha256 = _digest(temporary, "sha256")
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return sha256


def _fetch(
    url: str,
    path: Path,
    progress: Progress | None,
    timeout: tuple[float, float],
    total_seconds: float,
    max_bytes: int,
) -> None:
    deadline = time.monotonic() + total_seconds
    try:
        with requests.get(url, stream=True, timeout=timeout) as response, path.open("wb") as file:
            response.raise_for_status()
            size = int(response.headers.get("Content-Length", 0))
            done = 0
            for chunk in response.iter_content(_CHUNK):
                done += file.write(chunk)
                if max(done, size) > max_bytes:
                    raise DownloadError(f"{url} is larger than {max_bytes / 1e6:.0f} MB")
                if time.monotonic() > deadline:
                    raise DownloadError(f"{url} did not arrive within {total_seconds:.0f} s")
                if progress is not None:
                    progress(done, size)
    except requests.HTTPError as error:
        raise DownloadError(f"{url} answers {error.response.status_code} {error.response.reason}") from error
    except requests.RequestException as error:
        raise DownloadError(f"{url} cannot be reached ({_cause(error)})") from error
    # Content-Length counts bytes on the wire, which requests may have decompressed.
    if size and done < size and "Content-Encoding" not in response.headers:
        raise DownloadError(f"{url} was cut off after {done} of {size} bytes")


def _cause(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "time-out"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "connection cut off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__


def _check(url: str, path: Path, checksum: Checksum) -> None:
    found = _digest(path, checksum.algorithm)
    if not found.startswith(checksum.digits):
        raise DownloadError(
            f"{url} has the {checksum.algorithm} checksum {found[: len(checksum.digits)]}, "
            f"expected {checksum.digits}"
        )


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
