"""One server process: opens the model, chooses an arrangement if needed, and answers until told to stop."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import gc
import hashlib
import io
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from model_code.bundle.card import CARD
from model_code.predict.predictor import Predictor
from model_code.process.cores import cores
from model_code.serve import metrics, payload
from model_code.serve.access_log import AccessLog
from model_code.serve.answers import Answer, Writer
from model_code.serve.application import Application, Capabilities, report_trouble
from model_code.serve.batching import Batch, Batcher
from model_code.serve.concurrency import Arrangement, choose, fixed, measure
from model_code.serve.http.listener import Listener
from model_code.serve.http.messages import Request
from model_code.serve.http.poller import READ
from model_code.serve.http.protocol import Server
from model_code.serve.http.reactor import Reactor
from model_code.serve.metrics import Board
from model_code.serve.served_model import ServedModel
from model_code.serve.settings import STOP_SIGNALS, Settings

_SWEEP = 0.25
_SETTLE = 0.1
_DRAINED = 0.02
_LOCK_FACTOR = 6
"""Ratio of a photo's time under the reactor's lock to that of parsing the request and formatting the answer: 0.16 and
0.026 ms on a saturated server, where the rest are system calls, parsing and waking threads.
"""
# glibc keeps an arena per thread and holds on to big freed blocks: with photos of all sizes that doubles the
# resident memory. mallopt(3): M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD.
_MALLOC = ((-8, 2), (-3, 4 << 20), (-1, 16 << 20))


class Worker:
    """A server process. `listener` is shared by all of them."""

    def __init__(
        self, settings: Settings, directory: Path, listener: socket.socket, board: Board, row: int
    ) -> None:
        _tame_malloc()
        # Threads hold the GIL for microseconds; a wait of 5 ms, the default, would be a whole photo's time.
        sys.setswitchinterval(0.00005)
        self._settings = settings
        self._directory = directory
        self._listener = listener
        self._board = board
        self._metrics = board.row(row)
        self._metrics.add(metrics.STARTS)

    def prepare(self, arrangement: Arrangement | None) -> Arrangement:
        """Open the model, measure unless `arrangement` is given, and answer a warm-up.

        Raises:
            BundleError: the model cannot be served.
        """
        settings = self._settings
        share = cores()
        arrangement = arrangement or fixed(settings)
        threads = arrangement.threads if arrangement else settings.threads or 1
        predictor = self._open(threads)
        self._writer = Writer(
            predictor.classes,
            predictor.card.abstain_threshold,
            provenance(predictor, self._directory),
            predictor.unknown,
            settings.refusals,
        )
        photo = warm_up_photo(predictor)
        if arrangement is None:
            opened = {threads: predictor}

            def way(workers: int, threads: int) -> tuple[int, int, Callable[[int], Callable[[], object]]]:
                def prepare(size: int) -> Callable[[], object]:
                    if threads not in opened:
                        opened[threads] = self._open(threads)
                    chosen = opened[threads]
                    return lambda: chosen.predict([photo] * size)

                return workers, threads, prepare

            ways = [way(settings.workers or max(1, share // threads), threads)]
            if share > 1 and settings.threads is None and settings.workers is None:
                ways.append(way(1, share))
            arrangement = choose(measure(ways), _LOCK_FACTOR * self._handling_seconds(photo), share, settings)
            predictor = opened.get(arrangement.threads) or self._open(arrangement.threads)
        self._model = ServedModel(predictor, settings.limits.pixels, settings.explain)
        self._model.predict([self._model.prepare(photo)])
        self._arrangement = arrangement
        self._predictor = predictor
        return arrangement

    def _open(self, threads: int) -> Predictor:
        return Predictor.open(self._directory, runtime=self._settings.runtime, threads=threads)

    def _handling_seconds(self, photo: bytes) -> float:
        """Return the seconds that parsing and formatting a request take; one thread of a process does it at a time."""
        request = Request("POST", "/invocations", "", {"content-type": "image/jpeg"}, photo, True)
        classes = len(self._writer.classes)
        answer = Answer.of(np.full(classes, 1 / classes, np.float32))
        started = time.perf_counter()
        for _ in range(20):
            query = payload.read(request, self._settings.top_k, 1)
            self._writer.response(query, [answer]).encode(keep_alive=True)
        return (time.perf_counter() - started) / 20

    def serve(self, lifeline: int, ready: Callable[[], None]) -> None:
        """Answer until SIGTERM, then finish running requests. Ends at once when the other end of `lifeline` closes.

        SIGTERM and SIGINT must be blocked. `ready` is called when the process accepts connections.
        """
        # Objects made at start-up live as long as the process: full collections should not traverse them.
        gc.collect()
        gc.freeze()
        # Losing a thread degrades the server silently: end the process instead, and the supervisor starts another.
        threading.excepthook = _end_the_process
        log = AccessLog(self._settings.access_log)
        reactor = Reactor(report_trouble)
        batcher = Batcher(
            self._model,  # type: ignore[arg-type]
            self._arrangement.workers,
            self._arrangement.max_batch,
            self._arrangement.queue,
            self._observe,
            report_trouble,
        )
        application = Application(
            self._settings,
            self._model,
            self._writer,
            batcher,
            self._board,
            self._metrics,
            log,
            self._capabilities(),
        )
        server = Server(application, self._settings.limits)
        listener = Listener(reactor, self._listener, server.connect)

        def sweep() -> None:
            listener.sweep()
            server.sweep()
            self._metrics.seen_well(batcher.working_since())
            self._metrics.set(metrics.QUEUE, batcher.outstanding)
            self._metrics.set(metrics.CONNECTIONS, len(server.connections))
            self._metrics.set(metrics.BUFFERED, server.budget.held)
            self._metrics.set(metrics.MEMORY, resident_bytes())
            self._metrics.set(metrics.LOST_LOG_LINES, log.lost)

        with reactor.held():
            sweep()
            # The supervisor never writes: readable means that it is gone, and can no longer stop this process.
            reactor.watch(lifeline, READ, lambda _: os._exit(1))
            listener.open()
        reactor.start(batcher, self._arrangement.workers, _SWEEP, sweep)
        ready()
        signal.sigwait(STOP_SIGNALS)
        with reactor.held():
            listener.close()
        # A request received before the signal may still be unread in its socket: its connection is not idle.
        time.sleep(_SETTLE)
        with reactor.held():
            server.drain()
        deadline = time.monotonic() + self._settings.limits.drain_timeout
        while server.connections and time.monotonic() < deadline:
            time.sleep(_DRAINED)
        log.close()

    def _observe(self, batch: Batch) -> None:
        self._metrics.observe(metrics.BATCH, len(batch.items))
        self._metrics.observe(metrics.WAIT, batch.waited)
        self._metrics.add(metrics.WORK, batch.worked)

    def _capabilities(self) -> Capabilities:
        made = self._arrangement
        card = self._predictor.card
        info = {
            "model": card.name,
            "model_version": str(self._writer.provenance["model"]["version"]),
            "dataset_version": str(card.dataset.get("version", "")),
            "architecture": card.architecture,
            "runtime": str(self._predictor.runtime),
        }
        info |= {name: str(value) for name, value in made.to_json().items()}
        return Capabilities(info, made.processes * made.workers * made.max_batch)

    def describe(self) -> str:
        """Return a one-line description of model and arrangement."""
        made = self._arrangement
        cores = f"{made.processes} process(es) x {made.workers} worker(s) x {made.threads} thread(s)"
        return f"{self._predictor.card.name} with {self._predictor.runtime}: {cores}, batches up to {made.max_batch}"


def provenance(predictor: Predictor, directory: Path) -> dict[str, object]:
    """Model and data set, included in every answer; the model's version is the digest of its card."""
    card = predictor.card
    version = hashlib.sha256((directory / CARD).read_bytes()).hexdigest()[:12]
    return {
        "model": {"name": card.name, "version": version, "runtime": str(predictor.runtime)},
        "dataset": {"name": card.dataset.get("name"), "version": card.dataset.get("version")},
    }


def warm_up_photo(predictor: Predictor) -> bytes:
    """Return a golden photo, or a gray one of the network's size if the bundle has none."""
    if predictor.card.golden:
        return base64.b64decode(predictor.card.golden[0].photo)
    out = io.BytesIO()
    Image.new("RGB", (predictor.transform.resize,) * 2, "gray").save(out, "JPEG")
    return out.getvalue()


def report(pipe: int, message: Mapping[str, object]) -> None:
    """Send the supervisor a message: one JSON line."""
    os.write(pipe, json.dumps(message).encode() + b"\n")


def resident_bytes() -> int:
    """Resident memory of this process."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _end_the_process(failure: threading.ExceptHookArgs) -> None:
    name = failure.thread.name if failure.thread else "a thread"
    print(
        f"error: {name} ended: {failure.exc_type.__name__}: {failure.exc_value}", file=sys.stderr, flush=True
    )
    os._exit(1)


def _tame_malloc() -> None:
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _MALLOC:
            mallopt(parameter, value)
