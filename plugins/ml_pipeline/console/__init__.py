"""The console: models, runs, data sets and endpoints as pages of Airflow's api-server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TypeAlias

PREFIX = "/ml-pipeline"

_Scope: TypeAlias = MutableMapping[str, object]
_Receive: TypeAlias = Callable[[], Awaitable[_Scope]]
_Send: TypeAlias = Callable[[_Scope], Awaitable[None]]


class Console:
    """The ASGI application, built at its first request.

    Airflow imports plugins in every process; only the api-server is ever asked for a page, so only that imports
    FastAPI and boto3 for it.
    """

    def __init__(self) -> None:
        self._app: Callable[[_Scope, _Receive, _Send], Awaitable[None]] | None = None

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        if self._app is None:
            from ml_pipeline.console.app import create

            self._app = create()
        await self._app(scope, receive, send)
