"""Uploads of the folders that a job has written."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from local_aws.sagemaker import s3_data
from local_aws.sagemaker.trees import NotRegular, Tree

Sent = dict[str, tuple[int, int]]
"""(size, mtime in ns) of the files already sent, by their path in the tree."""


def upload_tree(s3: Any, tree: Tree, uri: str, sent: Sent | None = None) -> int:
    """Upload every regular file of a tree; a file that vanishes meanwhile is left out.

    Args:
        s3: The S3 client.
        tree: The local folder.
        uri: The target prefix.
        sent: Updated here; files that are in it unchanged are skipped.

    Returns:
        The number of files sent.

    Raises:
        DataError: An upload failed, or the tree is too deep.
    """
    bucket, prefix = s3_data.parse_uri(uri)

    def upload(name: str) -> int:
        with contextlib.suppress(FileNotFoundError, NotRegular), tree.open(name) as file:
            status = os.fstat(file.fileno())
            state = (status.st_size, status.st_mtime_ns)
            if sent is not None and sent.get(name) == state:
                return 0
            s3_data.upload_file(s3, file, name, bucket, s3_data.join(prefix, name))
            if sent is not None:
                sent[name] = state
            return 1
        return 0

    with ThreadPoolExecutor(s3_data.TRANSFERS) as pool:
        return sum(pool.map(upload, list(tree.files())))
