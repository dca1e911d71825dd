"""`--auth required`: SigV4 in headers, presigned URLs and forms; temporary keys; expiry; and who is let in."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from local_aws.iam.credentials import root_key
from tests.local_aws.cloud import Signing, eventually, training_request, unique


class Client(Signing):
    """The same, whose clients take options."""

    def client(self, service: str, region: str = "us-east-1", **options: Any) -> Any:
        keys = {"aws_access_key_id": self.key.id, "aws_secret_access_key": self.key.secret, **options}
        config = Config(retries={"max_attempts": 1}).merge(keys.pop("config", Config()))
        return boto3.session.Session().client(
            service, endpoint_url=self.url, region_name=region, config=config, **keys
        )


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    running = Client(tmp_path_factory.mktemp("signing"), ("--cores", "2", "--auth", "required"))
    running.start()
    running.client("s3").create_bucket(Bucket="data")
    running.client("s3").put_object(Bucket="data", Key="a b/ü+.txt", Body=b"text")
    yield running
    running.stop()


def code(call: Any, **params: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**params)
    return str(caught.value.response["Error"]["Code"])


def fetch(url: str, method: str = "GET", body: bytes | None = None, **headers: Any) -> tuple[int, bytes]:
    request = urllib.request.Request(
        url, body, {k.replace("_", "-"): v for k, v in headers.items()}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize(("service", "call", "refused"), [
    ("s3", "list_buckets", "SignatureDoesNotMatch"),
    ("sagemaker", "list_training_jobs", "InvalidSignatureException"),
    ("ec2", "describe_instances", "AuthFailure"),
    ("sts", "get_caller_identity", "SignatureDoesNotMatch"),
    ("sqs", "list_queues", "InvalidSignatureException"),
    ("iam", "list_roles", "SignatureDoesNotMatch"),
    ("logs", "describe_log_groups", "InvalidSignatureException"),
])  # fmt: skip
def test_the_right_secret_is_needed(signing: Client, service: str, call: str, refused: str) -> None:
    getattr(signing.client(service), call)()
    assert code(getattr(signing.client(service, aws_secret_access_key="wrong"), call)) == refused
    for wrong in ({"aws_secret_access_key": "wrong"}, {"aws_access_key_id": "AKIAWRONG"}):
        with pytest.raises(ClientError, match=r"use its key: eval .*local-aws env --state") as caught:
            getattr(signing.client(service, **wrong), call)()
        assert len(str(caught.value).splitlines()) == 1
    assert code(getattr(signing.client(service, aws_access_key_id="AKIANOBODY"), call)) in (
        "InvalidAccessKeyId", "UnrecognizedClientException", "AuthFailure", "InvalidClientTokenId",
    )  # fmt: skip


def test_anonymous_requests_are_refused(signing: Client) -> None:
    assert fetch(f"{signing.url}/data/a")[0] == 403
    assert fetch(f"{signing.url}/data?delete", "POST", b"<Delete/>")[0] == 403
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert fetch(f"{signing.url}/", "POST", b"Action=ListUsers&Version=2010-05-08", **form)[0] in (400, 403)
    web = (
        b"Action=AssumeRoleWithWebIdentity&RoleArn=arn:aws:iam::1:role/r&RoleSessionName=s&WebIdentityToken=t"
    )
    assert fetch(f"{signing.url}/", "POST", web, **form)[0] in (400, 403)
    assert fetch(f"{signing.url}/_local_aws/health")[0] == 200
    assert fetch(f"{signing.url}/_local_aws/status")[0] == 403


@pytest.mark.parametrize("version", ["s3", "s3v4"])
@pytest.mark.parametrize("style", ["path", "virtual"])
def test_presigned_urls(signing: Client, version: str, style: str) -> None:
    addressing: Any = {"addressing_style": style}
    s3 = signing.client("s3", config=Config(signature_version=version, s3=addressing))
    url = s3.generate_presigned_url("get_object", {"Bucket": "data", "Key": "a b/ü+.txt"}, ExpiresIn=60)
    host = urlsplit(url).netloc
    direct = url.replace(host, urlsplit(signing.url).netloc, 1)  # names such as data.127.0.0.1 do not resolve
    assert fetch(direct, Host=host)[0] in ((200,) if style == "path" else (200, 403))
    if style == "path":
        assert fetch(url) == (200, b"text")
        assert fetch(url.replace("%C3%BC", "u"))[0] == 403
        assert fetch(url + "&response-content-type=text%2Fhtml")[0] == 403
        assert fetch(url, "DELETE")[0] == 403
        put = s3.generate_presigned_url("put_object", {"Bucket": "data", "Key": "put"}, ExpiresIn=60)
        assert fetch(put, "PUT", b"bytes", Content_Type="")[0] == 200
        assert fetch(put, "PUT", b"", x_amz_copy_source="/data/a", Content_Type="")[0] == 403


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_urls_expire(signing: Client, version: str) -> None:
    s3 = signing.client("s3", config=Config(signature_version=version))
    url = s3.generate_presigned_url("get_object", {"Bucket": "data", "Key": "a b/ü+.txt"}, ExpiresIn=1)
    _, body = eventually(lambda: (r := fetch(url))[0] == 403 and r)
    assert b"Request has expired" in body
    later = urllib.parse.urlsplit(url)._replace(
        query=url.partition("?")[2]
        .replace("X-Amz-Expires=1", "X-Amz-Expires=600")
        .replace("Expires=", "Expires=9")
    )
    assert fetch(later.geturl())[0] in (400, 403)


def test_a_clock_that_is_wrong_is_refused(signing: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    request = AWSRequest("GET", f"{signing.url}/data", headers={})
    key = root_key(signing.state)
    signer = S3SigV4Auth(Credentials(key.id, key.secret), "s3", "us-east-1")
    signer.add_auth(request)
    assert fetch(request.url, **headers_of(request))[0] == 200
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - 3600))
    old = AWSRequest("GET", f"{signing.url}/data", headers={})
    old.context["timestamp"] = stamp
    old.headers["X-Amz-Date"] = stamp
    old.headers["X-Amz-Content-SHA256"] = hashlib.sha256(b"").hexdigest()
    old.headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(old)}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
        f"Signature={signer.signature(signer.string_to_sign(old, signer.canonical_request(old)), old)}"
    )
    status, body = fetch(old.url, **headers_of(old))
    assert status == 403
    assert b"RequestTimeTooSkewed" in body


def test_a_body_that_was_not_signed_is_refused(signing: Client) -> None:
    key = root_key(signing.state)
    body = b'{"logGroupName": "mine"}'
    request = AWSRequest("POST", f"{signing.url}/", data=body, headers={
        "X-Amz-Target": "Logs_20140328.CreateLogGroup", "Content-Type": "application/x-amz-json-1.1"})  # fmt: skip
    SigV4Auth(Credentials(key.id, key.secret), "logs", "us-east-1").add_auth(request)
    headers = headers_of(request)
    assert fetch(request.url, "POST", body.replace(b"mine", b"evil"), **headers)[0] == 400
    assert fetch(request.url, "POST", body, **headers)[0] == 200
    other = {**headers, "X-Amz-Target": "Logs_20140328.DeleteLogGroup"}
    assert fetch(request.url, "POST", body, **other)[0] == 400


def test_one_credential_only(signing: Client) -> None:
    key = root_key(signing.state)
    request = AWSRequest(
        "GET", f"{signing.url}/data?X-Amz-Credential=a%2Fb%2Fus-east-1%2Fiam%2Faws4_request", headers={}
    )
    S3SigV4Auth(Credentials(key.id, key.secret), "s3", "us-east-1").add_auth(request)
    status, body = fetch(request.url, **headers_of(request))
    assert (status, b"Only one auth mechanism" in body) == (400, True)
    twice = headers_of(request)
    twice["Authorization"] += ", Credential=x/20260101/us-east-1/iam/aws4_request"
    assert fetch(f"{signing.url}/data", **twice)[0] in (400, 403)


def headers_of(request: AWSRequest) -> dict[str, Any]:
    return dict(request.headers.items())


def post(url: str, fields: dict[str, str], content: bytes, name: str = "photo.jpg") -> tuple[int, bytes]:
    boundary = "----boundary"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = "".join(parts).encode() + head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return fetch(url, "POST", body, Content_Type=f"multipart/form-data; boundary={boundary}")


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_posts(signing: Client, version: str) -> None:
    s3 = signing.client("s3", config=Config(signature_version=version))
    made = s3.generate_presigned_post(
        "data", "up/${filename}", Fields={"Content-Type": "image/jpeg", "success_action_status": "201"},
        Conditions=[["starts-with", "$Content-Type", "image/"], ["content-length-range", 3, 300_000],
                    {"success_action_status": "201"}],
    )  # fmt: skip
    content = os.urandom(200_000)
    status, body = post(made["url"], made["fields"], content)
    assert status == 201, body
    assert b"<Key>up/photo.jpg</Key>" in body
    stored = s3.get_object(Bucket="data", Key="up/photo.jpg")
    assert stored["Body"].read() == content
    assert stored["ContentType"] == "image/jpeg"
    for change, content, refused in (
        ({}, b"xx", b"EntityTooSmall"),
        ({}, b"x" * 300_001, b"EntityTooLarge"),
        ({"Content-Type": "text/html"}, b"xxx", b"AccessDenied"),
        ({"x-amz-meta-extra": "1"}, b"xxx", b"AccessDenied"),
        ({"key": "elsewhere"}, b"xxx", b"AccessDenied"),
        ({"policy": base64.b64encode(b"{}").decode()}, b"xxx", b"SignatureDoesNotMatch"),
    ):
        status, body = post(made["url"], made["fields"] | change, content)
        assert status in (400, 403), (change, body)
        assert refused in body, (change, body)
    assert s3.get_object(Bucket="data", Key="up/photo.jpg")["ContentLength"] == 200_000
    unsigned = {"key": "up/x"}
    assert post(made["url"], unsigned, b"xxx")[0] == 403


def test_a_presigned_post_expires(signing: Client) -> None:
    made = signing.client("s3").generate_presigned_post("data", "late", ExpiresIn=-5)
    status, body = post(made["url"], made["fields"], b"x")
    assert status == 403
    assert b"Policy expired" in body


def test_chunks_are_verified(signing: Client) -> None:
    """STREAMING-AWS4-HMAC-SHA256-PAYLOAD, as the Java SDK and MinIO's clients send it."""
    key = root_key(signing.state)
    credentials = Credentials(key.id, key.secret)
    for tamper, status in ((False, 200), (True, 403)):
        chunks = [b"a" * 70_000, b"b" * 5, b""]
        request = AWSRequest(
            "PUT", f"{signing.url}/data/chunked", headers={"x-amz-decoded-content-length": "70005"}
        )
        signer = S3SigV4Auth(credentials, "s3", "us-east-1")
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        request.context["timestamp"] = stamp
        request.headers["X-Amz-Date"] = stamp
        request.headers["X-Amz-Content-SHA256"] = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
        names = "host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length"
        previous = signer.signature(
            signer.string_to_sign(request, signer.canonical_request(request)), request
        )
        request.headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={names}, Signature={previous}"
        )
        body = b""
        for chunk in chunks:
            text = "\n".join((
                "AWS4-HMAC-SHA256-PAYLOAD", stamp, f"{stamp[:8]}/us-east-1/s3/aws4_request", previous,
                hashlib.sha256(b"").hexdigest(), hashlib.sha256(chunk).hexdigest(),
            ))  # fmt: skip
            previous = signer.signature(text, request)
            sent = b"X" + chunk[1:] if tamper and chunk else chunk
            body += b"%x;chunk-signature=%s\r\n%s\r\n" % (len(chunk), previous.encode(), sent)
        answer = fetch(request.url, "PUT", body, **headers_of(request))
        assert answer[0] == status, answer


JOB = """
import boto3, os
print("key", os.environ["AWS_ACCESS_KEY_ID"])
boto3.client("s3").put_object(Bucket=os.environ["BUCKET"], Key="by-the-job", Body=b"1")
print("token", bool(os.environ["AWS_SESSION_TOKEN"]))
"""


def test_jobs_get_temporary_keys_of_their_own(signing: Client) -> None:
    bucket = signing.bucket()
    name = unique("keys")
    source = signing.put_code(bucket, train=JOB)
    signing.sagemaker.create_training_job(
        **training_request(name, bucket, source), Environment={"BUCKET": bucket}
    )
    ended = signing.training_ended(name)
    assert ended["TrainingJobStatus"] == "Completed", ended.get("FailureReason")
    lines = signing.log_of(name)
    assert "token True" in lines
    key = next(line for line in lines if line.startswith("key ")).split()[1]
    assert key != root_key(signing.state).id
    assert signing.s3.get_object(Bucket=bucket, Key="by-the-job")["Body"].read() == b"1"


def test_assumed_roles_sign_with_their_token(signing: Client) -> None:
    issued = signing.client("sts").assume_role(
        RoleArn="arn:aws:iam::123456789012:role/any", RoleSessionName="test"
    )
    keys = issued["Credentials"]
    given = {"aws_access_key_id": keys["AccessKeyId"], "aws_secret_access_key": keys["SecretAccessKey"]}
    signing.client("s3", **given, aws_session_token=keys["SessionToken"]).list_buckets()
    assert code(signing.client("s3", **given).list_buckets) == "InvalidToken"
    assert code(signing.client("s3", **given, aws_session_token="x").list_buckets) == "InvalidToken"


def test_keys_of_users_work_until_they_are_deleted(signing: Client) -> None:
    iam = signing.client("iam")
    iam.create_user(UserName="ada")
    made = iam.create_access_key(UserName="ada")["AccessKey"]
    given = {"aws_access_key_id": made["AccessKeyId"], "aws_secret_access_key": made["SecretAccessKey"]}
    signing.client("s3", **given).list_buckets()
    iam.delete_access_key(UserName="ada", AccessKeyId=made["AccessKeyId"])
    assert code(signing.client("s3", **given).list_buckets) == "InvalidAccessKeyId"


def test_files_are_for_their_owner_only(signing: Client) -> None:
    assert stat.S_IMODE(signing.state.stat().st_mode) == 0o700
    for path in (signing.state / "credentials", signing.state / "token", signing.state / "metadata.sqlite"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    blobs = [path for path in (signing.state / "s3").rglob("*") if path.is_file()]
    assert blobs
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in blobs)


def test_the_key_may_come_from_the_environment(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = root_key(
        tmp_path, {"LOCAL_AWS_ACCESS_KEY_ID": "AKIAGIVEN", "LOCAL_AWS_SECRET_ACCESS_KEY": "secret"}
    )
    assert (key.id, key.secret) == ("AKIAGIVEN", "secret")
    assert root_key(tmp_path, {}).id != "AKIAGIVEN"


def test_a_connection_goes_on_after_a_refusal(signing: Client) -> None:
    connection = http.client.HTTPConnection(urlsplit(signing.url).netloc, timeout=30)
    connection.request("PUT", "/data/x", body=b"x" * 100_000)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 403
    connection.request("GET", "/_local_aws/health")
    assert json.loads(connection.getresponse().read())["status"] == "ok"
    connection.close()
