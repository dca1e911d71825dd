"""Read request bodies that are small enough to hold in memory."""

from __future__ import annotations

import io

from local_aws.errors import AwsError
from local_aws.gateway.responses import Environ

MOST_BYTES = 32 * 2**20
"""Above the largest request that AWS's JSON, query and runtime APIs accept; S3 streams its bodies."""


def buffered(environ: Environ, most: int = MOST_BYTES) -> bytes:
    """Return the whole body and leave it readable for the next reader.

    Raises:
        AwsError: Content-Length is not a number, or the body is larger than `most` bytes.
    """
    text = str(environ.get("CONTENT_LENGTH") or "")
    if text and not (text.isascii() and text.isdigit()):
        raise AwsError("InvalidRequest", "Content-Length is not a number.")
    if text and int(text) > most:
        raise too_large(most)
    source = environ["wsgi.input"]
    body: bytes = source.read(int(text)) if text else source.read(most + 1)
    if len(body) > most:
        raise too_large(most)
    if text and len(body) < int(text):
        raise AwsError("InvalidRequest", "The body is shorter than its Content-Length.")
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    return body


def too_large(most: int) -> AwsError:
    """Return the error for a body above `most` bytes."""
    return AwsError("RequestEntityTooLarge", f"A request is at most {most} bytes.", status=413)
