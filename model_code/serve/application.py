"""The routes: /ping, /invocations, /metrics and /execution-parameters (SageMaker's container contract)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from model_code.serve import metrics, payload
from model_code.serve.access_log import AccessLog, Entry
from model_code.serve.answers import Outcome, Writer, refusal
from model_code.serve.batching import Batcher, Job
from model_code.serve.http.messages import CLIENT_GONE, HttpError, Request, Response
from model_code.serve.http.protocol import Exchange
from model_code.serve.metrics import Board, Metrics
from model_code.serve.payload import Format, Options, Query
from model_code.serve.served_model import ServedModel
from model_code.serve.settings import Refusals, Settings

_INFERENCE_ID = "x-amzn-sagemaker-inference-id"
_ECHOED = {
    payload.CUSTOM_ATTRIBUTES: "X-Amzn-SageMaker-Custom-Attributes",
    _INFERENCE_ID: "X-Amzn-SageMaker-Inference-Id",
}
# SageMaker's own limit for custom attributes.
_ECHO_LIMIT = 1024


@dataclass(frozen=True)
class Capabilities:
    """Facts that /metrics and /execution-parameters report."""

    info: dict[str, str]
    concurrent: int


class Application:
    """Routes requests of one process."""

    def __init__(
        self,
        settings: Settings,
        model: ServedModel,
        writer: Writer,
        batcher: Batcher,
        board: Board,
        row: Metrics,
        access_log: AccessLog,
        capabilities: Capabilities,
    ) -> None:
        self._settings = settings
        self._model = model
        self._writer = writer
        self._batcher = batcher
        self._board = board
        self._metrics = row
        self._log = access_log
        self._capabilities = capabilities
        self._routes: dict[str, dict[str, Callable[[Exchange], None]]] = {
            "/ping": {"GET": self._ping, "HEAD": self._ping},
            "/invocations": {"POST": self._invoke},
            "/metrics": {"GET": self._scrape},
            "/execution-parameters": {"GET": self._execution_parameters},
        }

    # -- protocol.Application ----------------------------------------------------------------------------------------

    def handle(self, exchange: Exchange) -> None:
        """Route a request; failures become error responses."""
        request = exchange.request
        try:
            methods = self._routes.get(request.path)
            if methods is None:
                raise HttpError(404, "path", f"no such path; there are {', '.join(self._routes)}")
            action = methods.get(request.method)
            if action is None:
                allowed = ", ".join(methods)
                raise HttpError(405, "method", f"{request.path} takes {allowed}", (("Allow", allowed),))
            action(exchange)
        except HttpError as error:
            self._reply(exchange, error.response())
        except Exception as error:
            self._reply(exchange, _internal(error))

    def answered(self, exchange: Exchange, response: Response, bytes_sent: int) -> None:
        """Count and log an answer."""
        seconds = time.perf_counter() - exchange.started
        request = exchange.request
        self._metrics.count_status(response.status)
        if request.path == "/ping" and response.status == 200:
            return
        if request.path == "/invocations":
            self._metrics.observe(metrics.LATENCY, seconds)
        self._log.write(
            Entry(
                time.time(),
                response.status,
                response.reason,
                request.method[:16],
                request.path[:200],
                seconds,
                response.photos,
                len(request.body),
                bytes_sent,
                _start_of(request, payload.CUSTOM_ATTRIBUTES),
                _start_of(request, _INFERENCE_ID),
            )
        )

    def refused(self, error: HttpError) -> None:
        """Count and log a request that was never complete."""
        self._metrics.count_status(error.status)
        self._log.write(Entry(time.time(), error.status, error.reason))

    # -- routes ------------------------------------------------------------------------------------------------------

    def _ping(self, exchange: Exchange) -> None:
        # The process accepts connections only after its model has answered a warm-up. A thread that hangs in native
        # code ends only with its container, which SageMaker replaces when this check fails.
        silence = self._board.silence()
        if silence > self._settings.limits.hang_timeout:
            raise HttpError(
                503, "hung", f"a server process has been stuck for {silence:.0f} s: restart the server"
            )
        self._reply(exchange, Response(200, b'{"status": "healthy"}\n'))

    def _invoke(self, exchange: Exchange) -> None:
        request = exchange.request
        query = self._query(request)
        if query.format is Format.PNG and not (query.options.explain and query.single):
            raise HttpError(406, "accept", "image/png is the answer to explain=true for one photo")
        if query.options.explain and not self._model.explains:
            raise HttpError(403, "explain", self._model.no_explanation)

        def done(outcomes: list[Outcome]) -> None:
            if exchange.cancelled:
                exchange.reply(CLIENT_GONE)
                return
            try:
                response = self._writer.response(query, outcomes)
            except Exception as error:
                response = _internal(error)
            self._count_photos(outcomes)
            self._reply(exchange, response)

        self._batcher.submit(
            Job(query.photos, done, query.options.explain, query.options.target, lambda: exchange.cancelled)
        )

    def _query(self, request: Request) -> Query:
        """Parse a request; where refusals are rows, a body without a usable photo becomes a photo with its reason."""
        try:
            return payload.read(request, self._settings.top_k, self._settings.limits.photos)
        except HttpError as error:
            if self._settings.refusals is not Refusals.ROW or error.reason not in ("empty", "content_type"):
                raise
            accept = request.headers.get("accept", "")
            options = Options(self._settings.top_k)
            return Query((error,), options, payload.negotiate(accept, Format.JSON, options), single=True)

    def _scrape(self, exchange: Exchange) -> None:
        body = self._board.render(self._capabilities.info)
        self._reply(exchange, Response(200, body, metrics.CONTENT_TYPE))

    def _execution_parameters(self, exchange: Exchange) -> None:
        # Batch transform asks for these:
        # https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-batch-code.html
        parameters = {
            "MaxConcurrentTransforms": self._capabilities.concurrent,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": self._settings.limits.body >> 20,
        }
        self._reply(exchange, Response(200, json.dumps(parameters).encode()))

    def _reply(self, exchange: Exchange, response: Response) -> None:
        response.headers += _echo(exchange.request)
        exchange.reply(response)

    def _count_photos(self, outcomes: list[Outcome]) -> None:
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        self._metrics.add(metrics.PHOTOS, len(outcomes) - len(failed))
        self._metrics.add(metrics.REFUSED, len(failed))
        for error in failed:
            if refusal(error).status == 500:
                report_trouble(error)


def _start_of(request: Request, header: str) -> str | None:
    value = request.headers.get(header)
    return None if value is None else value[:_ECHO_LIMIT]


def _echo(request: Request) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, request.headers[key])
        for key, name in _ECHOED.items()
        if 0 < len(request.headers.get(key, "")) <= _ECHO_LIMIT
    )


def _internal(error: Exception) -> Response:
    report_trouble(error)
    return HttpError(500, "internal", "the server failed on this request; its log says why").response()


def report_trouble(error: Exception) -> None:
    """Write an error that no client can be told about to the server's log."""
    print(f"error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
