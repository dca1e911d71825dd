"""Whole objects to and from S3: many requests in flight, throttling honored, and a minute for what passes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import CONNECTIONS, Client
from ml_pipeline.aws.downloads import Downloads
from ml_pipeline.errors import code_of, is_transient

Result = TypeVar("Result")

# One request of 40 ms after the other reads 25 photos/s. S3 takes 5,500 GETs per second and prefix.
REQUESTS = CONNECTIONS
_THROTTLES = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "503", "429"}
_PATIENCE = 8
_FIRST_PAUSE = 0.2
_MISSING = {"NoSuchKey", "404", "NoSuchVersion"}


class AdaptiveLimit:
    """A limit on concurrent requests: halved when the service throttles, raised by one per full round of successes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = most
        self._active = 0
        self._since_raise = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._active < self.limit)
            self._active += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._active -= 1
            self._since_raise += 1
            if self._since_raise >= self.limit < self.most:
                self.limit, self._since_raise = self.limit + 1, 0
            self._changed.notify_all()

    def throttled(self) -> None:
        """Lower the limit; a burst of answers to one round of requests counts once."""
        with self._changed:
            if self._since_raise > self.limit // 4 or self.limit == self.most:
                self.limit = max(1, self.limit // 2)
            self._since_raise = 0


class Transfers:
    """Reads and writes whole objects, called from many threads at once.

    Every call waits up to a minute for what passes: throttling, a broken connection, expired credentials, for which
    botocore has others at the next try.

    Args:
        s3: boto3 client.
    """

    def __init__(self, s3: Client) -> None:
        self._s3 = s3
        self.limit = AdaptiveLimit(REQUESTS)
        self._downloads = Downloads(s3, self.limit.throttled)

    def read(self, uri: str) -> bytes:
        """Return the bytes of an object.

        Raises:
            FileNotFoundError: There is no such object.
            ClientError: A refusal, or one that does not pass in time.
            ConnectionError, HTTPClientError, IncompleteReadError: Of botocore: the network fails for longer.
        """
        from botocore.exceptions import ClientError

        try:
            return self._patiently(lambda: self._downloads.read(uri))
        except ClientError as error:
            if code_of(error) in _MISSING:
                raise FileNotFoundError(f"{uri} vanished after it was listed") from error
            raise

    def write(self, uri: str, path: Path) -> None:
        """Write a file as an object.

        Raises:
            FileNotFoundError, PermissionError: The file cannot be read.
            ClientError, S3UploadFailedError, ConnectionError, HTTPClientError: As `read`.
        """
        from boto3.s3.transfer import TransferConfig

        bucket, key = objects.split_uri(uri)
        alone = TransferConfig(use_threads=False)
        self._patiently(lambda: self._s3.upload_file(str(path), bucket, key, Config=alone))

    def _patiently(self, call: Callable[[], Result]) -> Result:
        pause = _FIRST_PAUSE
        for _ in range(_PATIENCE):
            try:
                with self.limit:
                    return call()
            except Exception as error:
                if not is_transient(error):
                    raise
                if code_of(error) in _THROTTLES:
                    self.limit.throttled()
            time.sleep(pause)
            pause *= 2
        with self.limit:
            return call()
