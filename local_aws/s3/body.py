"""Request bodies: read in chunks whatever their framing, checked against every digest the client gave."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import BinaryIO

from local_aws.s3.blobs import CHUNK, Blob
from local_aws.s3.checksums import Algorithm, Digests, algorithm_named, from_headers
from local_aws.s3.errors import S3Error
from local_aws.s3.http import Request

LARGEST_PUT = 5 * 1024**3
LARGEST_DOCUMENT = 8 * 1024 * 1024
_LONGEST_LINE = 8192
_MOST_TRAILERS = 20
_TRAILER_SIGNATURE = "x-amz-trailer-signature"
_HEX = re.compile(rb"[0-9a-fA-F]{1,12}")


class Body:
    """The body of one request: `chunks()` once, then `trailers`.

    Understands Content-Length, Transfer-Encoding: chunked (which the server decodes) and, inside either, aws-chunked
    with or without signatures and trailers, which SDKs send by default.
    """

    def __init__(self, request: Request) -> None:
        self._input: BinaryIO = request.input
        self._signer = request.chunk_signer
        self._framed = request.headers.get("x-amz-content-sha256", "").startswith("STREAMING-") or (
            "aws-chunked" in request.headers.get("content-encoding", "")
        )
        self._length = request.content_length
        if self._length is None and request.headers.get("transfer-encoding", "").lower() != "chunked":
            self._length = 0
        decoded = request.headers.get("x-amz-decoded-content-length")
        self._decoded_length = (
            int(decoded[:20]) if decoded and decoded.isascii() and decoded.isdigit() else None
        )
        self.trailers: dict[str, str] = {}
        expected = self._decoded_length if self._framed else self._length
        if expected is not None and expected > LARGEST_PUT:
            raise S3Error("EntityTooLarge", ProposedSize=str(expected), MaxSizeAllowed=str(LARGEST_PUT))

    def chunks(self) -> Iterator[bytes]:
        """Yield the payload in pieces of at most 1 MiB.

        Raises:
            S3Error: IncompleteBody, EntityTooLarge, or SignatureDoesNotMatch for a signed chunk.
        """
        total = 0
        for chunk in self._pieces():
            total += len(chunk)
            if total > LARGEST_PUT:
                raise S3Error("EntityTooLarge", ProposedSize=str(total), MaxSizeAllowed=str(LARGEST_PUT))
            yield chunk

    def _pieces(self) -> Iterator[bytes]:
        if self._framed:
            yield from self._framed_chunks()
        elif self._length is None:
            while chunk := self._input.read(CHUNK):
                yield chunk
        else:
            yield from self._exactly(self._length)

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size > 0:
            chunk = self._input.read(min(CHUNK, size))
            if not chunk:
                raise S3Error("IncompleteBody")
            size -= len(chunk)
            yield chunk

    def _framed_chunks(self) -> Iterator[bytes]:
        total = 0
        while True:
            size, signature = self._chunk_head()
            digest = hashlib.sha256() if self._signer else None
            total += size
            for piece in self._exactly(size):
                if digest:
                    digest.update(piece)
                yield piece
            if self._signer and digest:
                self._signer.check(digest.hexdigest(), signature)
            if not size:
                break
            if self._line():
                raise S3Error("IncompleteBody")
        self._read_trailers()
        if self._length is None:
            # The end of HTTP's own framing would otherwise be taken for the next request.
            while self._input.read(CHUNK):
                pass
        if self._decoded_length is not None and total != self._decoded_length:
            raise S3Error("IncompleteBody")

    def _read_trailers(self) -> None:
        signed = b""
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            name = name.strip().lower()
            if name in self.trailers or len(self.trailers) >= _MOST_TRAILERS:
                raise S3Error("IncompleteBody")
            self.trailers[name] = value.strip()
            if name != _TRAILER_SIGNATURE:
                signed += f"{name}:{value.strip()}\n".encode("latin-1")
        if self._signer and signed:
            self._signer.check_trailer(signed, self.trailers.get(_TRAILER_SIGNATURE, ""))

    def _chunk_head(self) -> tuple[int, str]:
        """Return the size of the next chunk, and its signature where it has one."""
        size, _, extension = self._line().partition(b";")
        if not _HEX.fullmatch(size):
            raise S3Error("IncompleteBody")
        return int(size, 16), extension.decode("latin-1").removeprefix("chunk-signature=").strip()

    def _line(self) -> bytes:
        return self._input.readline(_LONGEST_LINE).rstrip(b"\r\n")


def receive(request: Request, blob: Blob, algorithms: tuple[Algorithm, ...] = ()) -> Digests:
    """Write a request's body to `blob`, flush it, and check all that the client said about it.

    The checksums in the result are those the client named, or `algorithms`, or CRC64NVME as S3 adds by
    itself. Raises BadDigest, InvalidDigest, XAmzContentSHA256Mismatch, IncompleteBody, EntityTooLarge.
    """
    body = Body(request)
    given = from_headers(request.headers)
    announced = request.headers.get("x-amz-trailer", "")
    wanted = (
        set(given) | {algorithm for algorithm in Algorithm if algorithm.header in announced} | set(algorithms)
    )
    named = request.headers.get("x-amz-sdk-checksum-algorithm")
    if named:
        wanted.add(algorithm_named(named))
    sha256 = request.headers.get("x-amz-content-sha256", "")
    digests = Digests(wanted or {Algorithm.CRC64NVME}, content_sha256=len(sha256) == 64)
    for chunk in body.chunks():
        digests.update(chunk)
        blob.write(chunk)
    digests.check_sha256(sha256)
    digests.check_md5(request.headers.get("content-md5"))
    trailing = from_headers(body.trailers)
    digests.check(given | {algorithm: value for algorithm, value in trailing.items() if algorithm in wanted})
    blob.finish()
    return digests


def read_document(request: Request) -> bytes:
    """Return a whole small body, such as an XML configuration. Raises as `receive`; MalformedXML above 8 MiB."""
    if request.document is not None:
        return request.document
    body, parts, size = Body(request), [], 0
    given = from_headers(request.headers)
    sha256 = request.headers.get("x-amz-content-sha256", "")
    digests = Digests(given, content_sha256=len(sha256) == 64)
    for chunk in body.chunks():
        size += len(chunk)
        if size > LARGEST_DOCUMENT:
            raise S3Error("MalformedXML")
        digests.update(chunk)
        parts.append(chunk)
    digests.check_sha256(sha256)
    digests.check_md5(request.headers.get("content-md5"))
    digests.check(given)
    return b"".join(parts)
