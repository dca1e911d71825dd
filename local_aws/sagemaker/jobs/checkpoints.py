"""Checkpoints of a training job, synchronized with S3: downloaded before it starts, uploaded while it runs."""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path
from typing import Any

from local_aws.sagemaker import s3_data
from local_aws.sagemaker.s3_data import DataError

logger = logging.getLogger(__name__)

SYNC_SECONDS = 1.0


class CheckpointSync:
    """One host's checkpoint folder and its S3 prefix."""

    def __init__(self, s3: Any, uri: str, folder: Path) -> None:
        self._s3, self._uri, self._folder = s3, uri.rstrip("/") + "/", folder
        self._sent: dict[Path, tuple[int, int]] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"checkpoints to {uri}", daemon=True)

    def download(self) -> None:
        """Download the checkpoints of an earlier attempt, if there are any."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(DataError):
            s3_data.download(self._s3, s3_data.list_prefix(self._s3, self._uri), self._folder)

    def start(self) -> None:
        """Upload new files every SYNC_SECONDS until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Upload the remaining files, then end."""
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(SYNC_SECONDS):
            self._send()
        self._send()

    def _send(self) -> None:
        try:
            s3_data.upload_tree(self._s3, self._folder, self._uri, newer_than=self._sent)
        except (DataError, OSError) as error:
            # A file may vanish while it is read; the next round sees the folder as it is then.
            logger.warning("checkpoints to %s: %s", self._uri, error)
