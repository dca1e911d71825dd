"""Checksums of objects, computed while bytes pass by: MD5 for the ETag, and those a client sends or requests."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

import anycrc

from local_aws.s3.errors import S3Error


class Algorithm(Enum):
    """S3's checksum algorithms; the value is the suffix of `x-amz-checksum-<suffix>`."""

    CRC32 = "crc32"
    CRC32C = "crc32c"
    CRC64NVME = "crc64nvme"
    SHA1 = "sha1"
    SHA256 = "sha256"

    def __init__(self, suffix: str) -> None:
        self.header = f"x-amz-checksum-{suffix}"
        """`x-amz-checksum-crc32`."""
        self.element = f"Checksum{suffix.upper()}"
        """`ChecksumCRC32`, its name in XML."""


_CRCS: Mapping[Algorithm, tuple[Callable[[bytes, int], int], int]] = {
    Algorithm.CRC32: (zlib.crc32, 4),
    Algorithm.CRC32C: (anycrc.Model("CRC32-ISCSI").calc, 4),
    Algorithm.CRC64NVME: (anycrc.Model("CRC64-NVME").calc, 8),
}


class _Crc:
    def __init__(self, algorithm: Algorithm) -> None:
        self._function, self._size = _CRCS[algorithm]
        self._value = 0

    def update(self, chunk: bytes) -> None:
        self._value = self._function(chunk, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def _hasher(algorithm: Algorithm) -> Any:
    if algorithm in _CRCS:
        return _Crc(algorithm)
    return hashlib.new(algorithm.value, usedforsecurity=False)


class Digests:
    """Everything that is computed over one body in one pass."""

    def __init__(self, algorithms: Iterable[Algorithm] = (), content_sha256: bool = False) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._checksums = {algorithm: _hasher(algorithm) for algorithm in algorithms}
        self._sha256 = hashlib.sha256() if content_sha256 else None

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        self._md5.update(chunk)
        for hasher in self._checksums.values():
            hasher.update(chunk)
        if self._sha256 is not None:
            self._sha256.update(chunk)

    @property
    def md5_hex(self) -> str:
        """The source of the ETag."""
        return self._md5.hexdigest()

    @property
    def values(self) -> dict[Algorithm, str]:
        """Base64 of each checksum."""
        return {algorithm: encode(hasher.digest()) for algorithm, hasher in self._checksums.items()}

    def check_md5(self, content_md5: str | None) -> None:
        """Compare with a Content-MD5 header. Raises InvalidDigest or BadDigest."""
        if content_md5 is None:
            return
        try:
            stated = base64.b64decode(content_md5, validate=True)
        except binascii.Error:
            stated = b""
        if len(stated) != 16:
            text = "The Content-MD5 you specified was invalid."
            raise S3Error("InvalidDigest", text, **{"Content-MD5": content_md5})
        if stated != self._md5.digest():
            found = {"ExpectedDigest": content_md5, "CalculatedDigest": encode(self._md5.digest())}
            raise S3Error(
                "BadDigest", "The Content-MD5 you specified did not match what we received.", **found
            )

    def check_sha256(self, expected: str | None) -> None:
        """Compare with an x-amz-content-sha256 header, where `content_sha256` asked for it."""
        if self._sha256 is not None and expected != self._sha256.hexdigest():
            raise S3Error("XAmzContentSHA256Mismatch")

    def check(self, expected: Mapping[Algorithm, str]) -> None:
        """Compare with the checksums that the client gave. Raises BadDigest naming the one that differs."""
        computed = self.values
        for algorithm, value in expected.items():
            if computed[algorithm] != value:
                if not _has_size_of(value, computed[algorithm]):
                    raise S3Error("InvalidRequest", f"Value for {algorithm.header} header is invalid.")
                raise S3Error(
                    "BadDigest", f"The {algorithm.name} you specified did not match the calculated checksum."
                )


def _has_size_of(stated: str, computed: str) -> bool:
    try:
        return len(base64.b64decode(stated, validate=True)) == len(base64.b64decode(computed))
    except binascii.Error:
        return False


def encode(digest: bytes) -> str:
    """Base64 as S3 writes it."""
    return base64.b64encode(digest).decode()


def decode(text: str) -> bytes:
    """Return the bytes of a base64 digest. Raises InvalidDigest."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise S3Error("InvalidDigest") from None


def from_headers(headers: Mapping[str, str]) -> dict[Algorithm, str]:
    """Return the checksums among (lower-case) headers or trailers."""
    return {algorithm: headers[algorithm.header] for algorithm in Algorithm if algorithm.header in headers}


def algorithm_named(name: str) -> Algorithm:
    """`CRC32` -> Algorithm.CRC32. Raises InvalidRequest."""
    try:
        return Algorithm[name.upper()]
    except KeyError:
        raise S3Error(
            "InvalidRequest",
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
            "[CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
        ) from None


def composite(algorithm: Algorithm, parts: Iterable[str]) -> str:
    """Return the checksum of a multipart object as S3 builds it from those of its parts: `<base64>-<count>`."""
    hasher, count = _hasher(algorithm), 0
    for part in parts:
        hasher.update(decode(part))
        count += 1
    return f"{encode(hasher.digest())}-{count}"
