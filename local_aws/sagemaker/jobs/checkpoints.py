"""Checkpoints of a training job, synchronized with S3: downloaded before it starts, uploaded while it runs."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Any

from local_aws.sagemaker import s3_data
from local_aws.sagemaker.s3_data import DataError
from local_aws.sagemaker.trees import Tree
from local_aws.sagemaker.uploads import Sent, upload_tree

logger = logging.getLogger(__name__)

SYNC_SECONDS = 1.0


class CheckpointSync:
    """One host's checkpoint folder and its S3 prefix."""

    def __init__(self, s3: Any, uri: str, tree: Tree) -> None:
        self._s3, self._uri, self._tree = s3, uri.rstrip("/") + "/", tree
        self._sent: Sent = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"checkpoints to {uri}", daemon=True)

    def download(self) -> None:
        """Download the checkpoints of an earlier attempt, if there are any."""
        folder = self._tree.root.joinpath(*self._tree.parts)
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(DataError):
            s3_data.download(self._s3, s3_data.list_prefix(self._s3, self._uri), folder)

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
            upload_tree(self._s3, self._tree, self._uri, self._sent)
        except (DataError, OSError) as error:
            # A file may vanish while it is read; the next round sees the folder as it is then.
            logger.warning("checkpoints to %s: %s", self._uri, error)
