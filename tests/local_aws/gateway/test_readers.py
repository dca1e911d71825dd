"""Every byte-level reader of requests, fed with arbitrary bytes: an answer or AWS's error, never another exception."""

from __future__ import annotations

import hashlib
import io
import random
import time
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_aws.context import Key
from local_aws.errors import AwsError
from local_aws.gateway.bodies import buffered
from local_aws.gateway.chunked import ChunkedBody
from local_aws.gateway.connection import Reader
from local_aws.gateway.credentials import credential_of
from local_aws.gateway.doors import Doors, host_name
from local_aws.gateway.router import scope_of
from local_aws.iam.authentication import verify, verify_form
from local_aws.iam.gate import call_of
from local_aws.iam.secrets import SecretKeys
from local_aws.s3 import xml
from local_aws.s3.api.bucket import parse_deletions
from local_aws.s3.api.objects import parse_tags
from local_aws.s3.body import Body
from local_aws.s3.errors import S3Error
from local_aws.s3.http import Request
from local_aws.s3.post_form import Form, check_policy, read_form, stored_request

ROOT = Key("AKIAROOT", "secret/+key")
KEYS = SecretKeys(ROOT)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def is_refusal(error: AwsError) -> None:
    """Check that an error blames the client."""
    assert error.status in (400, 401, 403, 413)


class Sent:
    """A socket that delivers bytes in pieces of random sizes."""

    def __init__(self, data: bytes, seed: int = 0) -> None:
        self._data, self._random = io.BytesIO(data), random.Random(seed)

    def recv(self, size: int) -> bytes:
        return self._data.read(min(size, self._random.randint(1, 40)))


def reader(data: bytes, seed: int = 0) -> Reader:
    return Reader(Sent(data, seed))  # type: ignore[arg-type]


def framed(body: bytes, seed: int) -> bytes:
    rng, out, position = random.Random(seed), b"", 0
    while position < len(body):
        size = rng.randint(1, 30)
        piece = body[position : position + size]
        out += b"%x\r\n%s\r\n" % (len(piece), piece)
        position += size
    return out + b"0\r\n\r\n"


@quick
@given(st.binary(max_size=300), st.integers(0, 1000))
def test_chunked_bodies_are_read_whole(body: bytes, seed: int) -> None:
    source = reader(framed(body, seed) + b"NEXT", seed)
    assert ChunkedBody(source).read() == body
    assert source.read(4) == b"NEXT"
    lines = b"".join(iter(ChunkedBody(reader(framed(body, seed), seed)).readline, b""))
    assert lines == body


@quick
@given(st.binary(max_size=200), st.integers(0, 1000))
def test_arbitrary_chunked_bytes(data: bytes, seed: int) -> None:
    for read in (ChunkedBody.read, ChunkedBody.readline, ChunkedBody.readlines):
        try:
            read(ChunkedBody(reader(data, seed)))
        except AwsError as error:
            is_refusal(error)


@quick
@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_aws_chunked_bytes(data: bytes, mutate: bool) -> None:
    valid = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    position = len(data) % len(valid)
    body = valid[:position] + data + valid[position:] if mutate else data
    headers = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "content-length": str(len(body))}
    request = Request("PUT", "bucket", "key", {}, headers, io.BytesIO(body))
    try:
        assert all(isinstance(piece, bytes) for piece in Body(request).chunks())
    except S3Error as error:
        is_refusal(error)


@quick
@given(st.integers(0, 4000), st.binary(max_size=8), st.text(max_size=20))
def test_bodies_of_any_stated_length(length: int, data: bytes, stated: str) -> None:
    for text in (str(length), stated):
        environ: dict[str, Any] = {"CONTENT_LENGTH": text, "wsgi.input": io.BytesIO(data)}
        try:
            assert buffered(environ, 1000) == environ["wsgi.input"].read()
        except AwsError as error:
            is_refusal(error)


def form_request(body: bytes, boundary: str = "b") -> Request:
    headers = {"content-type": f"multipart/form-data; boundary={boundary}", "content-length": str(len(body))}
    return Request("POST", "bucket", "", {}, headers, io.BytesIO(body))


def form_body(fields: dict[str, str], content: bytes) -> bytes:
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value.encode())
        for name, value in fields.items()
    ]
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return b"".join(parts) + head + content + b"\r\n--b--\r\n"


def content_of(form: Form, size: int = 7) -> bytes:
    return b"".join(iter(lambda: form.file.read(size), b""))


@quick
@given(st.binary(max_size=3000), st.integers(1, 5000))
def test_forms_deliver_their_file_whole(content: bytes, size: int) -> None:
    content = content.replace(b"\r\n--b", b"")
    form = read_form(form_request(form_body({"key": "k/${filename}", "acl": "private"}, content)))
    assert form.fields == {"key": "k/${filename}", "acl": "private"}
    assert content_of(form, size) == content
    assert stored_request(form, form_request(b"")).key == "k/a.jpg"


@quick
@given(st.binary(max_size=100), st.integers(0, 10_000), st.integers(0, 40))
def test_arbitrary_forms(data: bytes, position: int, cut: int) -> None:
    valid = form_body({"key": "k", "policy": "e30=", "x-amz-signature": "0"}, b"content")
    position %= len(valid)
    for body in (data, valid[:position] + data + valid[position + cut :], valid[:position]):
        try:
            form = read_form(form_request(body))
            content_of(form)
            stored_request(form, form_request(b""))
            if "policy" in form.fields:
                check_policy(form)
            verify_form(form, KEYS)
        except AwsError as error:
            is_refusal(error)


@quick
@given(st.binary(max_size=400))
def test_arbitrary_xml(data: bytes) -> None:
    for body in (
        data,
        b"<Delete><Object>" + data + b"</Object></Delete>",
        b"<Tagging>" + data + b"</Tagging>",
    ):
        for parse in (parse_deletions, parse_tags, lambda text: xml.parse(text, "Tagging")):
            try:
                parse(body)
            except S3Error as error:
                is_refusal(error)


def environ_of(request: AWSRequest, body: bytes = b"") -> dict[str, Any]:
    """The environ that the server makes of a request."""
    url = urlsplit(request.url)
    headers = {
        f"HTTP_{name.upper().replace('-', '_')}": (value.decode() if isinstance(value, bytes) else str(value))
        for name, value in request.headers.items()
    }
    return {
        "REQUEST_METHOD": request.method, "PATH_INFO": "/", "QUERY_STRING": url.query, "HTTP_HOST": url.netloc,
        "REQUEST_URI": url.path + (f"?{url.query}" if url.query else ""), "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": headers.pop("HTTP_CONTENT_TYPE", ""), **headers,
    }  # fmt: skip


def checked(environ: dict[str, Any]) -> None:
    scope = scope_of(environ, "us-east-1")
    environ |= {"local_aws.service": scope.service, "local_aws.region": scope.region}
    verify(environ, environ["local_aws.credential"], KEYS)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=12)


@quick
@given(
    TEXT,
    st.dictionaries(TEXT.filter(bool), TEXT, max_size=4),
    st.binary(max_size=50),
    st.sampled_from(["s3", "sqs"]),
)
def test_what_botocore_signs_is_verified(path: str, query: dict[str, str], body: bytes, service: str) -> None:
    encoded = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query.items()
    )
    url = f"http://127.0.0.1:4566/{quote(path, safe='/-_.~')}" + (f"?{encoded}" if encoded else "")
    request = AWSRequest(
        "PUT", url, data=body, headers={"x-amz-meta-a": "  two  spaces ", "Content-Type": "text/plain"}
    )
    signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(
        Credentials(ROOT.id, ROOT.secret), service, "us-east-1"
    )
    signer.add_auth(request)
    if "x-amz-content-sha256" in request.headers:
        assert request.headers["X-Amz-Content-SHA256"] == hashlib.sha256(body).hexdigest()
    checked(environ_of(request, body))
    other = environ_of(request, body)
    other["HTTP_X_AMZ_META_A"] = "other"
    with pytest.raises(AwsError):
        checked(other)


@quick
@given(st.text(max_size=80), st.text(max_size=80), st.booleans())
def test_arbitrary_credentials(header: str, query: str, signed: bool) -> None:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    if signed:
        scope = f"{header}/{stamp[:8]}/us-east-1/s3/aws4_request"
        header = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/a", "QUERY_STRING": f"X-Amz-Date={query}&{query}", "HTTP_HOST": query,
        "HTTP_AUTHORIZATION": header, "HTTP_X_AMZ_DATE": query or stamp, "wsgi.input": io.BytesIO(),
    }  # fmt: skip
    try:
        credential_of(environ)
        checked(environ)
    except AwsError as error:
        is_refusal(error)
    else:
        raise AssertionError("nothing arbitrary is let in")


@quick
@given(
    st.binary(max_size=200),
    st.text(max_size=30),
    st.text(max_size=40),
    st.sampled_from(["iam", "sqs", "ec2", "logs"]),
)
def test_arbitrary_calls(body: bytes, target: str, query: str, service: str) -> None:
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/", "QUERY_STRING": query, "HTTP_X_AMZ_TARGET": target,
        "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), "CONTENT_TYPE": "",
    }  # fmt: skip
    try:
        operation, params = call_of(environ, service)
        assert isinstance(operation, str)
        assert isinstance(params, dict)
    except AwsError as error:
        is_refusal(error)


@quick
@given(st.text(max_size=60))
def test_arbitrary_hosts(host: str) -> None:
    allowed = Doors().is_allowed_host(host_name(host))
    if allowed:
        assert host_name(host).endswith(("localhost", "amazonaws.com")) or host_name(host).startswith(
            ("127.", "[", ":")
        )
