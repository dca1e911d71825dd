"""An open loop after MLPerf's server scenario: Poisson arrivals, each latency counted from the scheduled moment.

A query that cannot be sent in time, because the generator or every connection is late, is late in the result too. So
what a slow server causes (coordinated omission) is not lost. Source: MLPerf Inference, "Server" scenario.

Run as a process of its own: python -m benchmarks._serving_poisson PORT PATH CONTENT_TYPE FOLDER RATE SECONDS SEED
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

_PATIENCE = 20.0
_LATE = 0.0005
"""Seconds by which the generator may wake up late before it counts as behind."""


class Connection(asyncio.Protocol):
    """A keep-alive connection with at most one request on its way."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; the future is the status of its answer."""
        assert self.transport
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found and self._answer:
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
            if len(body) >= int(length or 0):
                self._received = b""
                self._answer.set_result(int(head.split(b" ", 2)[1]))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed by the server"))


class Generator:
    """Sends requests at scheduled moments over as many connections as it takes."""

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._port, self._requests = port, requests
        self._free: list[Connection] = []
        self.latencies: list[float] = []
        self.errors = 0
        self.behind = 0

    async def run(self, rate: float, seconds: float, draw: random.Random) -> None:
        """Drive the server for `seconds` at a mean of `rate` per second."""
        loop = asyncio.get_running_loop()
        start, at, asked = loop.time() + 0.1, 0.0, []
        while (at := at + draw.expovariate(rate)) < seconds:
            pause = start + at - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            self.behind += loop.time() - start - at > _LATE
            asked.append(asyncio.create_task(self._ask(draw.choice(self._requests), start + at)))
        await asyncio.gather(*asked)

    async def _ask(self, request: bytes, scheduled: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection = self._free.pop() if self._free else await self._connect()
            status = await asyncio.wait_for(connection.ask(request), _PATIENCE)
        except (OSError, TimeoutError):
            self.errors += 1
            return
        self.latencies.append(loop.time() - scheduled)
        self.errors += status != 200
        self._free.append(connection)

    async def _connect(self) -> Connection:
        _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self._port)
        return made


def main() -> None:
    port, path, content_type, folder, rate, seconds, seed = sys.argv[1:]
    requests = []
    for file in sorted(Path(folder).glob("[0-9]*")):
        body = file.read_bytes()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
        requests.append(f"{head}\r\n\r\n".encode() + body)
    generator = Generator(int(port), requests)
    gc.disable()  # a collection would make the generator late
    asyncio.run(generator.run(float(rate), float(seconds), random.Random(int(seed))))
    ms = sorted(1000 * latency for latency in generator.latencies)
    if not ms:
        sys.exit("no query was answered")
    print(json.dumps({
        "queries": len(ms), "errors": generator.errors, "behind": generator.behind / len(ms),
        "p50": ms[len(ms) // 2], "p90": ms[len(ms) * 9 // 10], "p99": ms[len(ms) * 99 // 100],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
