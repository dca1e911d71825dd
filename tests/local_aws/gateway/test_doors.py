"""local_aws answers its own clients only: no foreign host, origin or cross-site fetch, and nothing scriptable."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest

from local_aws.gateway.doors import Doors, addresses, host_name
from tests.local_aws.cloud import Cloud

DOORS = Doors(hosts=frozenset({"local-aws", "10.1.2.3"}), origins=frozenset({"https://app.example"}))
DELETE = b"<Delete><Object><Key>precious</Key></Object></Delete>"


def refusal(**headers: str) -> str | None:
    environ = {
        "HTTP_HOST": "127.0.0.1:4566",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "PATH_INFO": "/b/k",
    }
    return DOORS.refusal(environ | headers)


OWN = (
    "127.0.0.1:4566 127.8.9.1 localhost:4566 LOCALHOST. b.s3.localhost:4566 [::1]:4566 local-aws:4566 "
    "bucket.local-aws:4566 10.1.2.3:4566 s3.us-east-1.amazonaws.com b.s3.amazonaws.com:80"
)
FOREIGN = (
    "evil.example evil.example:4566 0.0.0.0:4566 192.168.1.2 notlocalhost localhost.evil.example [::2] "
    "amazonaws.com.evil.example xamazonaws.com 127.0.0.1.evil.example evil-local-aws 127.0.0.1@evil"
)


@pytest.mark.parametrize("host", ["", *OWN.split()])
def test_own_hosts_are_answered(host: str) -> None:
    assert refusal(HTTP_HOST=host) is None


@pytest.mark.parametrize("host", FOREIGN.split())
def test_foreign_hosts_are_refused(host: str) -> None:
    assert "is not an address of local_aws" in str(refusal(HTTP_HOST=host))


def test_origins() -> None:
    assert refusal(HTTP_ORIGIN="http://127.0.0.1:4566") is None
    assert refusal(HTTP_ORIGIN="https://app.example", HTTP_SEC_FETCH_SITE="cross-site") is None
    for origin in (
        "https://evil.example",
        "null",
        "http://127.0.0.1:8080",
        "http://127.0.0.2:4566",
        "https://app.example.evil",
    ):
        assert "foreign" in str(refusal(HTTP_ORIGIN=origin)), origin


def test_fetches_of_other_sites_are_refused() -> None:
    assert refusal(HTTP_SEC_FETCH_SITE="none") is None
    assert refusal(HTTP_SEC_FETCH_SITE="same-origin") is None
    for site in ("cross-site", "same-site", "Cross-Site"):
        assert "another site" in str(refusal(HTTP_SEC_FETCH_SITE=site))


def test_a_click_on_a_presigned_object_is_answered() -> None:
    click = {
        "HTTP_SEC_FETCH_SITE": "same-site",
        "HTTP_SEC_FETCH_MODE": "navigate",
        "HTTP_SEC_FETCH_DEST": "document",
    }
    signed = {
        "QUERY_STRING": "X-Amz-Credential=A%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Signature=0"
    }
    assert refusal(**click, **signed) is None
    assert refusal(**click) is not None
    assert refusal(**click, **signed, REQUEST_METHOD="POST") is not None
    assert (
        refusal(**{**click, **signed, "QUERY_STRING": signed["QUERY_STRING"] + "&Action=RunInstances"})
        is not None
    )
    framed = {**click, "HTTP_SEC_FETCH_DEST": "iframe"}
    assert refusal(**framed, **signed) is None
    assert refusal(**framed) is not None
    assert refusal(**{**framed, **signed, "HTTP_SEC_FETCH_SITE": "cross-site"}) is not None


def test_addresses_come_from_the_environment() -> None:
    assert addresses({"LOCAL_AWS_URL": "http://Local-AWS:4566", "LOCAL_AWS_PUBLIC_URL": "https://aws.example"}) == (
        "local-aws", "aws.example",
    )  # fmt: skip
    assert host_name("[::1]:80") == "[::1]"


def ask(cloud: Cloud, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(cloud.url).netloc, timeout=30)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, path, skip_host="Host" in sent)
    for name, value in {**sent, "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.mark.parametrize(
    "path", ["/bucket/key", "/_local_aws/health", "/_local_aws/interrupt/a", "/?Action=RunInstances", "/"]
)
def test_every_path_is_closed_to_web_pages(cloud: Cloud, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        assert ask(cloud, method, path, Host="evil.example:80").status == 403
        assert ask(cloud, method, path, Origin="https://evil.example").status == 403
        assert ask(cloud, method, path, Sec_Fetch_Site="same-site").status == 403


def test_a_simple_post_of_another_site_deletes_nothing(cloud: Cloud, bucket: str) -> None:
    cloud.s3.put_object(Bucket=bucket, Key="precious", Body=b"1")
    page = {
        "Content_Type": "text/plain;charset=UTF-8", "Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site",
        "Sec_Fetch_Mode": "no-cors",
    }  # fmt: skip
    assert ask(cloud, "POST", f"/{bucket}?delete", DELETE, **page).status == 403
    assert cloud.s3.get_object(Bucket=bucket, Key="precious")["Body"].read() == b"1"


def test_a_connection_survives_a_refusal(cloud: Cloud) -> None:
    connection = http.client.HTTPConnection(urlsplit(cloud.url).netloc, timeout=30)
    for headers, status in (({"Origin": "null"}, 403), ({}, 200)):
        connection.request("GET", "/_local_aws/health", headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


def test_a_browser_runs_nothing_that_a_job_wrote_and_reads_nothing(cloud: Cloud, bucket: str) -> None:
    page = b"<script>fetch('/')</script>"
    cloud.s3.put_object(Bucket=bucket, Key="report.html", Body=page, ContentType="text/html")
    for answer in (
        cloud.s3.get_object(Bucket=bucket, Key="report.html"),
        cloud.client("sqs").list_queues(),
        cloud.client("logs").describe_log_groups(),
    ):
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        assert headers["content-security-policy"] == "sandbox"
        assert headers["x-content-type-options"] == "nosniff"
        assert not [name for name in headers if name.startswith("access-control-")]


def test_an_origin_that_was_asked_for_gets_cors(own_cloud: object) -> None:
    cloud = own_cloud("--allow-origin", "https://app.example")  # type: ignore[operator]
    preflight = ask(
        cloud, "OPTIONS", "/b/k", Origin="https://app.example", Access_Control_Request_Headers="x-amz-date"
    )
    assert preflight.status == 200
    assert preflight.headers["Access-Control-Allow-Headers"] == "x-amz-date"
    answer = ask(
        cloud, "GET", "/_local_aws/health", Origin="https://app.example", Sec_Fetch_Site="cross-site"
    )
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert ask(cloud, "GET", "/_local_aws/health", Origin="https://evil.example").status == 403
