"""A TCP proxy on loopback that counts the HTTP requests that pass through it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

# The end of a request line; signed bodies of the control plane are JSON and never hold it.
_REQUEST = b" HTTP/1.1\r\n"


class CountingProxy:
    """Forwards its own port to another while it is entered.

    Attributes:
        url: Its address.
        requests: Requests so far.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.requests = 0
        self.url = ""

    def __enter__(self) -> CountingProxy:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            answer.close()
            return
        await asyncio.gather(self._pass(client, writer, counted=True), self._pass(reader, answer))

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, counted: bool = False
    ) -> None:
        try:
            while data := await source.read(1 << 16):
                if counted:
                    self.requests += data.count(_REQUEST)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
