"""Many small objects of S3: GET requests that cost about half the CPU of boto3's `get_object`."""

from __future__ import annotations

import os
from typing import Any, Final

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import CONNECTIONS, Client

# Statuses after which a presigned URL is worth trying again.
_PASSING: Final = (429, 500, 502, 503, 504)
# As botocore takes them, the first that is set.
_BUNDLES: Final = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")


class Downloads:
    """Reads whole objects with presigned URLs, and with `get_object` whatever those do not bring.

    `get_object` knows all errors, retries, redirects and checksums, so it has the last word about each object. Where
    it reads what a presigned URL did not bring (a policy that denies them, a redirect, certificates that only the
    client knows), the next objects are read with it at once.
    """

    def __init__(self, s3: Client) -> None:
        from botocore.httpsession import URLLib3Session
        from botocore.utils import get_environ_proxies

        self._s3 = s3
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
        status, body = self._get(uri)
        if body is None:
            body = objects.read(self._s3, uri)
            self._presigned &= status in _PASSING
        return body

    def _get(self, uri: str) -> tuple[int | None, bytes | None]:
        """Return the status of the answer and the object, which is None where there was another answer or none."""
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
            return None, None
        except (HTTPClientError, IncompleteReadError):
            return 503, None
        return answer.status_code, body if answer.status_code == 200 else None
