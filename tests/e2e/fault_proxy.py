"""An HTTP proxy in front of local_aws that fails calls, and loses answers of calls that were executed."""

from __future__ import annotations

import http.client
import json
import random
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# (HTTP status, code of the error, message)
_FAULTS = (
    (400, "ThrottlingException", "Rate exceeded"),
    (400, "ExpiredTokenException", "The security token included in the request is expired"),
    (500, "InternalFailure", "We encountered an internal error."),
    (503, "ServiceUnavailable", "Please reduce your request rate."),
)


class FaultProxy:
    """Answers on `url` for the server on `port` while it is entered.

    Attributes:
        share: Probability that a call fails; in half of the cases it was executed, and only its answer is lost.
        lose: Operations whose next answers are lost: {"CreateEndpoint": 1}.
        calls, failed, lost: Number of calls by operation.
        created: Names that Create calls succeeded for, with the number of successes.
    """

    def __init__(self, port: int, share: float = 0.0, seed: int = 0) -> None:
        self.port, self.share = port, share
        self.lose: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.created: Counter[str] = Counter()
        self.random, self._lock = random.Random(seed), threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fate(self, operation: str) -> str:
        """Decide about a call: "answer", "fail" or "lose"."""
        with self._lock:
            self.calls[operation] += 1
            if self.lose[operation]:
                self.lose[operation] -= 1
                fate = "lose"
            else:
                chance = self.random.random()
                fate = "answer" if chance >= self.share else "fail" if chance < self.share / 2 else "lose"
            self.failed[operation] += fate == "fail"
            self.lost[operation] += fate == "lose"
            return fate

    def note(self, operation: str, status: int, body: bytes) -> None:
        """Remember what a successful Create call made."""
        if status == 200 and operation.startswith(("CreateTr", "CreateProc", "CreateHyper")):
            document = json.loads(body)
            name = next(value for key, value in document.items() if key.endswith("JobName"))
            with self._lock:
                self.created[name] += 1


class _Handler(BaseHTTPRequestHandler):
    """Passes a request on, or does not."""

    proxy: FaultProxy
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self._body()
        target = self.headers.get("X-Amz-Target", "")
        action = re.match(rb"Action=(\w+)", body)
        operation = target.rpartition(".")[2] or (action[1].decode() if action else self.command)
        fate = self.proxy.fate(operation)
        if fate == "fail":
            self._fail(target)
            return
        status, headers, answer = self._forward(body)
        self.proxy.note(operation, status, body)
        if fate == "lose":
            self.close_connection = True
            return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length")
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _answer  # noqa: N815

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=120)
        kept = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "expect")
        }
        try:
            connection.request(self.command, self.path, body, {**kept, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _fail(self, target: str) -> None:
        status, code, message = self.proxy.random.choice(_FAULTS)
        if target:
            kind, text = (
                "application/x-amz-json-1.1",
                json.dumps({"__type": code, "message": message}),
            )
        else:
            kind, error = "application/xml", f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
            text = f"<ErrorResponse><Errors>{error}</Errors>{error}</ErrorResponse>"
        body = b"" if self.command == "HEAD" else text.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        # By this one clients of endpoints know the code.
        self.send_header("x-amzn-ErrorType", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""
