"""POST Object: uploads by HTML forms and presigned POSTs, read as a stream and checked against their policy.

After "Authenticating requests in browser-based uploads using POST" of the S3 API reference.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from email.message import Message
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from local_aws.gateway.responses import Environ
from local_aws.s3 import xml
from local_aws.s3.body import LARGEST_PUT
from local_aws.s3.errors import S3Error
from local_aws.s3.http import Request, Response

MOST_FIELD_BYTES = 20 * 1024
"""Size of everything before the file, as S3 limits it."""
_READ = 64 * 1024
_UNCHECKED = frozenset({"policy", "x-amz-signature", "awsaccesskeyid", "signature", "file"})
_HEADER_FIELDS = ("content-type", "cache-control", "content-disposition", "content-encoding", "expires")
_UNMET = "Invalid according to Policy: Policy Condition failed: "


@dataclass(frozen=True)
class Form:
    """The fields before the file, by lower-case name, and the file that is still to be read."""

    bucket: str
    fields: Mapping[str, str]
    file_name: str
    file: FilePart


Admit = Callable[[Form], None]
"""Check who sent a form and what they may do. Raises AwsError."""


def is_form(environ: Environ) -> bool:
    """Return True for a POST of a multipart form without any other credential."""
    return (
        environ.get("REQUEST_METHOD") == "POST"
        and str(environ.get("CONTENT_TYPE", "")).lower().startswith("multipart/form-data")
        and not environ.get("HTTP_AUTHORIZATION")
        and not environ.get("QUERY_STRING")
    )


class FilePart:
    """The bytes of a form's file up to its boundary, as a readable stream within limits of length."""

    def __init__(self, source: BinaryIO, begin: bytes, boundary: bytes) -> None:
        self._source, self._buffer, self._end = source, begin, b"\r\n" + boundary
        self._done = False
        self._total = 0
        self._limits = (0, LARGEST_PUT)

    def limit(self, least: int, most: int) -> None:
        """Set the allowed length, both ends included."""
        self._limits = (max(least, self._limits[0]), min(most, self._limits[1]))

    def read(self, size: int = _READ) -> bytes:
        """Read at most `size` bytes; b"" at the end.

        Raises:
            S3Error: IncompleteBody without a final boundary, EntityTooSmall, EntityTooLarge.
        """
        while not self._done and len(self._buffer) < size + len(self._end):
            piece = self._source.read(_READ)
            if not piece:
                break
            self._buffer += piece
        if self._done:
            return b""
        found = self._buffer.find(self._end)
        if found >= 0 and found <= size:
            data, self._buffer, self._done = self._buffer[:found], b"", True
            while self._source.read(_READ):  # fields after the file do not count
                pass
        elif found < 0 and len(self._buffer) < size + len(self._end):
            raise S3Error("IncompleteBody")
        else:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
        self._total += len(data)
        least, most = self._limits
        if self._total > most:
            raise S3Error("EntityTooLarge", ProposedSize=str(self._total), MaxSizeAllowed=str(most))
        if self._done and self._total < least:
            raise S3Error("EntityTooSmall", ProposedSize=str(self._total), MinSizeAllowed=str(least))
        return data


def read_form(request: Request) -> Form:
    """Read a form up to its file.

    Raises:
        S3Error: MalformedPOSTRequest, MaxPostPreDataLengthExceeded, or InvalidArgument without key or file.
    """
    message = Message()
    message["Content-Type"] = request.headers.get("content-type", "")
    boundary = str(message.get_param("boundary") or "").encode("latin-1", "replace")
    if not boundary or len(boundary) > 70:
        raise S3Error("MalformedPOSTRequest")
    mark = b"--" + boundary
    source = _Limited(request)
    buffer = b""
    fields: dict[str, str] = {}
    while True:
        head, buffer = _until(source, buffer, b"\r\n\r\n")
        if not head.lstrip(b"\r\n").startswith(mark):
            raise S3Error("MalformedPOSTRequest")
        if head.lstrip(b"\r\n").startswith(mark + b"--"):
            raise S3Error("InvalidArgument", "POST requires exactly one file upload per request.")
        name, file_name = _part_head(head)
        if name == "file":
            source.unlimited()
            return Form(request.bucket, fields, file_name, FilePart(source, buffer, mark))  # type: ignore[arg-type]
        value, buffer = _until(source, buffer, b"\r\n" + mark)
        buffer = mark + buffer
        fields[name] = value.decode("utf-8", "replace")


def stored_request(form: Form, request: Request) -> Request:
    """Return the PutObject request that a form amounts to. Raises S3Error without a key."""
    key = form.fields.get("key", "").replace("${filename}", form.file_name)
    if not key:
        raise S3Error("InvalidArgument", "Bucket POST must contain a field named 'key'.  If it is specified, "
                      "please check the order of the fields.", ArgumentName="key", ArgumentValue="")  # fmt: skip
    headers = {name: form.fields[name] for name in _HEADER_FIELDS if name in form.fields}
    headers |= {name: value for name, value in form.fields.items() if name.startswith(("x-amz-meta-", "x-amz-checksum-",
                "x-amz-storage-class", "x-amz-server-side-encryption", "x-amz-website-redirect-location"))}  # fmt: skip
    if "acl" in form.fields:
        headers["x-amz-acl"] = form.fields["acl"]
    if "tagging" in form.fields:
        tags = xml.parse(form.fields["tagging"].encode(), "Tagging", frozenset({"Tag"})).get("TagSet") or {}
        pairs = [(tag.get("Key", ""), tag.get("Value", "")) for tag in tags.get("Tag", [])]
        headers["x-amz-tagging"] = urlencode(pairs)
    headers["transfer-encoding"] = "chunked"  # the length of the file is known at its end
    return replace(request, method="PUT", key=key, headers=headers, input=form.file)  # type: ignore[arg-type]


def check_policy(form: Form, now: float | None = None) -> None:
    """Check a form against its policy document and set the limits of its file.

    Raises:
        S3Error: InvalidPolicyDocument; AccessDenied when it expired or a condition is not met.
    """
    try:
        document = json.loads(base64.b64decode(form.fields["policy"], validate=True))
        end = datetime.fromisoformat(str(document["expiration"]).replace("Z", "+00:00")).timestamp()
        conditions = list(document["conditions"])
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise S3Error("InvalidPolicyDocument") from None
    if end < (time.time() if now is None else now):
        raise S3Error("AccessDenied", "Invalid according to Policy: Policy expired.")
    values = {**form.fields, "bucket": form.bucket}
    checked: set[str] = set()
    for condition in conditions:
        checked.add(_check(condition, values, form))
    extra = [
        name
        for name in form.fields
        if name not in checked | _UNCHECKED and not name.startswith("x-ignore-")
    ]  # fmt: skip
    if extra:
        raise S3Error("AccessDenied", f"Invalid according to Policy: Extra input fields: {extra[0]}")


def answer(form: Form, request: Request, key: str, etag: str) -> Response:
    """Return S3's answer to a stored form: 204, or what the form asks for."""
    place = f"{request.url}/{request.bucket}/{quote(key)}"
    headers = {"ETag": etag, "Location": place}
    target = form.fields.get("success_action_redirect") or form.fields.get("redirect", "")
    if target.startswith(("http://", "https://")):
        query = urlencode({"bucket": request.bucket, "key": key, "etag": etag})
        headers["Location"] = re.sub(r"[\r\n]", "", target) + ("&" if "?" in target else "?") + query
        return Response(303, b"", headers)
    status = form.fields.get("success_action_status", "204")
    if status == "201":
        body = {"Location": place, "Bucket": request.bucket, "Key": key, "ETag": etag}
        return Response.xml(xml.document("PostResponse", body), headers, 201)
    return Response(200 if status == "200" else 204, b"", headers)


def _check(condition: Any, values: Mapping[str, str], form: Form) -> str:
    """Check one condition; return the lower-case name of the field it is about."""
    shown = json.dumps(condition)
    if isinstance(condition, dict) and len(condition) == 1:
        name, wanted = next(iter(condition.items()))
        operator, name = "eq", str(name).lower()
    elif isinstance(condition, list) and len(condition) == 3:
        operator, name, wanted = (
            str(condition[0]).lower(),
            str(condition[1]).lower().removeprefix("$"),
            condition[2],
        )
    else:
        raise S3Error("InvalidPolicyDocument")
    if operator == "content-length-range":
        try:
            form.file.limit(int(condition[1]), int(condition[2]))
        except (ValueError, TypeError):
            raise S3Error("InvalidPolicyDocument") from None
        return ""
    found = values.get(name, "")
    if operator == "starts-with":
        parts = found.split(",") if name == "content-type" else [found]
        met = all(part.strip().startswith(str(wanted)) for part in parts)
    else:
        met = operator == "eq" and found == str(wanted)
    if not met:
        raise S3Error("AccessDenied", _UNMET + shown)
    return name


def _part_head(head: bytes) -> tuple[str, str]:
    """Return the field name and file name of a part from its header lines."""
    message = Message()
    for line in head.split(b"\r\n")[1:]:
        header, colon, value = line.decode("utf-8", "replace").partition(":")
        if colon and header.strip() and "\n" not in line.decode("latin-1") and "\r" not in value:
            message[header.strip()] = value.strip()
    name = message.get_param("name", header="content-disposition")
    file_name = message.get_param("filename", "", header="content-disposition")
    if not isinstance(name, str) or not name:
        raise S3Error("MalformedPOSTRequest")
    plain = file_name if isinstance(file_name, str) else ""
    return name.lower(), re.split(r"[/\\]", plain)[-1]


def _until(source: _Limited, buffer: bytes, end: bytes) -> tuple[bytes, bytes]:
    """Return the bytes before `end`, and those after it that were read already."""
    searched = 0
    while (found := buffer.find(end, max(0, searched - len(end)))) < 0:
        searched = len(buffer)
        piece = source.read(_READ)
        if not piece:
            raise S3Error("MalformedPOSTRequest")
        buffer += piece
    return buffer[:found], buffer[found + len(end) :]


class _Limited:
    """A request's body, of which at most MOST_FIELD_BYTES may precede the file."""

    def __init__(self, request: Request) -> None:
        self._input: BinaryIO = request.input
        self._left = request.content_length
        self._seen = 0
        self._limited = True

    def unlimited(self) -> None:
        self._limited = False

    def read(self, size: int) -> bytes:
        if self._limited:
            if self._seen >= MOST_FIELD_BYTES:
                raise S3Error("MaxPostPreDataLengthExceeded")
            size = min(size, 4096)
        if self._left is not None:
            size = min(size, self._left)
            if size == 0:
                return b""
        piece = self._input.read(size)
        self._seen += len(piece)
        if self._left is not None:
            self._left -= len(piece)
        return piece
