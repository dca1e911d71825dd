"""Checkpoints that survive `kill -9`: atomic, checksummed, two deep, on a time budget."""

import hashlib
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

_MAGIC: Final = b"ml-pipeline checkpoint 1\n"
_DIGEST_BYTES: Final = 32
_NAME: Final = re.compile(r"step-(\d{12})\.ckpt")
# The newest may be half-written by a machine that lost power, so the one before it stays.
_KEPT: Final = 2


class CorruptCheckpoint(ValueError):
    """A file that is not a whole checkpoint."""


def fingerprint(*identity: Any) -> str:
    """Twelve hex digits that identify a fit by its recipe, data and stage (anything that JSON can hold)."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings; lists, dicts of them) so that `path` is either complete or absent."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    payload = buffer.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name per folder: the next write replaces what a kill left half-written.
    partial = path.with_name(".partial")
    with partial.open("wb") as file:
        file.write(_MAGIC)
        file.write(hashlib.sha256(payload).digest())
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(path: Path) -> dict[str, Any]:
    """Return the state in `path`, on the CPU.

    Raises:
        CorruptCheckpoint: The file is cut short, altered or something else.
    """
    content = path.read_bytes()
    start = len(_MAGIC) + _DIGEST_BYTES
    if not content.startswith(_MAGIC) or len(content) <= start:
        raise CorruptCheckpoint(f"{path} is not a checkpoint")
    payload = memoryview(content)[start:]
    if hashlib.sha256(payload).digest() != content[len(_MAGIC) : start]:
        raise CorruptCheckpoint(f"{path} is damaged: its checksum does not match")
    # weights_only: a checkpoint comes back from S3, so it must not be able to run code.
    return dict(torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))


class Checkpoints:
    """The checkpoints of one fit, in a folder named after its fingerprint.

    SageMaker copies `/opt/ml/checkpoints` to S3 while the job runs and back when a spot job is restarted.
    It does not pass SIGTERM on to the script (sagemaker-training-toolkit issue 125), so saving goes by the
    clock, never by a signal. Several fits may share one folder: a fit never resumes from
    a checkpoint of another recipe or data set.

    Args:
        folder: Where checkpoints live, or None to keep none.
        identity: The fit's `fingerprint`.
        seconds: The time budget: `due` is true when this time has passed since the last save.
        writes: Whether this process saves; only rank 0 does.
        clock: Monotonic seconds; for tests.
    """

    def __init__(
        self,
        folder: Path | None,
        identity: str,
        *,
        seconds: float = 30.0,
        writes: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder / identity if folder else None
        self._seconds = seconds
        self._writes = writes
        self._clock = clock
        self._saved_at = clock()

    @property
    def enabled(self) -> bool:
        """True if there is a folder to save in."""
        return self._folder is not None

    def due(self) -> bool:
        """Return True if the time budget is spent. Ranks may differ: use rank 0's answer for all."""
        return self.enabled and self._clock() - self._saved_at >= self._seconds

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Save `state` after `step` steps and drop all but the newest two. Only rank 0 writes."""
        if self._folder is not None and self._writes:
            write(self._folder / f"step-{step:012d}.ckpt", state)
            for old in self._newest_first()[_KEPT:]:
                old.unlink(missing_ok=True)
        self._saved_at = self._clock()

    def latest(self) -> dict[str, Any] | None:
        """Return the newest whole checkpoint, or None. A damaged one is named on stderr and skipped."""
        for path in self._newest_first():
            try:
                return read(path)
            except (CorruptCheckpoint, OSError) as error:
                print(f"skipping a checkpoint: {error}", file=sys.stderr, flush=True)
        return None

    def _newest_first(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted((p for p in self._folder.iterdir() if _NAME.fullmatch(p.name)), reverse=True)
