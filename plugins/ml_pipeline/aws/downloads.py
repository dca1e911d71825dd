"""Many small objects of S3: GET requests that cost about half the CPU of boto3's `get_object`."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import CONNECTIONS, Client

_THROTTLES: Final = (429, 503)
# As botocore takes them, the first that is set.
_BUNDLES: Final = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")


class _Missed(Enum):
    """Reasons for which a presigned URL brought no object."""

    THROTTLED = auto()
    BROKEN = auto()  # the connection, or the server: the next one may do
    REFUSED = auto()


class Downloads:
    """Reads whole objects with presigned URLs, and with `get_object` whatever those do not bring.

    `get_object` knows all errors, retries, redirects and checksums, so it has the last word about each object. Where
    it reads what a presigned URL did not bring (a policy that denies them, a redirect, certificates that only the
    client knows), the next objects are read with it at once.

    Args:
        s3: boto3 client.
        throttled: Called when S3 asks for fewer requests, which `get_object` would hide by its retries.
    """

    def __init__(self, s3: Client, throttled: Callable[[], None] = lambda: None) -> None:
        from botocore.httpsession import URLLib3Session
        from botocore.utils import get_environ_proxies

        self._s3, self._throttled = s3, throttled
        self._session = URLLib3Session(
            verify=next(filter(None, map(os.environ.get, _BUNDLES)), True),  # type: ignore[arg-type]
            proxies=s3.meta.config.proxies or get_environ_proxies(s3.meta.endpoint_url),
            max_pool_connections=CONNECTIONS,
        )
        self._presigned = True

    def read(self, uri: str) -> bytes:
        """Return the bytes of an object.

        Raises:
            BotoCoreError, ClientError: As `get_object`.
        """
        if not self._presigned:
            return objects.read(self._s3, uri)
        found = self._get(uri)
        if isinstance(found, bytes):
            return found
        if found is _Missed.THROTTLED:
            self._throttled()
        body = objects.read(self._s3, uri)
        if found is _Missed.REFUSED:
            self._presigned = False
        return body

    def _get(self, uri: str) -> bytes | _Missed:
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import HTTPClientError, IncompleteReadError, SSLError
        from botocore.hooks import first_non_none_response
        from botocore.response import StreamingBody

        bucket, key = objects.split_uri(uri)
        url = self._s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
        request = AWSRequest("GET", url, stream_output=True).prepare()
        try:
            # As botocore does, so that what watches or answers the client's requests sees these, too.
            seen = self._s3.meta.events.emit("before-send.s3.GetObject", request=request)
            answer = first_non_none_response(seen) or self._session.send(request)
            length: Any = answer.headers.get("Content-Length")
            body: bytes = StreamingBody(answer.raw, length).read()
        except SSLError:
            return _Missed.REFUSED
        except (HTTPClientError, IncompleteReadError):
            return _Missed.BROKEN
        if answer.status_code == 200:
            return body
        if answer.status_code in _THROTTLES:
            return _Missed.THROTTLED
        return _Missed.BROKEN if answer.status_code >= 500 else _Missed.REFUSED
