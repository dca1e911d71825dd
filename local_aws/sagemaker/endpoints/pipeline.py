"""An inference pipeline: the servers of a model's containers, each of which answers the one before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import urllib3

from local_aws.context import Context
from local_aws.gateway.json_service import Document
from local_aws.sagemaker.endpoints import model_data
from local_aws.sagemaker.endpoints.server import ModelServer, ServerSpec
from local_aws.sagemaker.models import NAME

CONTENT_TYPE = "Content-Type"


class Unanswered(Exception):
    """A container did not answer.

    Attributes:
        server: Its server.
        reached: Whether a container may have seen the request.
        error: What urllib3 raised.
    """

    def __init__(self, server: ModelServer, reached: bool, error: urllib3.exceptions.HTTPError) -> None:
        super().__init__(f"the {server.container} container broke off: {error}")
        self.server, self.reached, self.error = server, reached, error


def prepare(context: Context, region: str, containers: Sequence[Document], folder: Path) -> None:
    """Unpack the model data of every container into its folder.

    Raises:
        DataError: The data cannot be downloaded or unpacked, or its requirements cannot be installed.
    """
    for container in containers:
        model_data.prepare(context, region, container, _opt_ml(folder, container))


class Pipeline:
    """The servers of one instance, in the order of their containers: most models have one. Thread-safe."""

    def __init__(
        self,
        context: Context,
        region: str,
        containers: Sequence[Document],
        *,
        name: str,
        folder: Path,
        cores: int,
        startup_seconds: float,
        log_group: str,
        stream: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start the servers, with the arguments of `ServerSpec.of` for each container.

        Raises:
            ServerFailed: No image serves a container.
        """
        self.outstanding = 0
        self._lock = threading.Lock()
        specs = [
            ServerSpec.of(
                context,
                region,
                container,
                name=" ".join(filter(None, (name, container.get(NAME)))),
                opt_ml=_opt_ml(folder, container),
                cores=cores,
                startup_seconds=startup_seconds,
                env=env,
            )
            for container in containers
        ]
        # The streams of a pipeline's containers end with their names; that of a single container is the instance's.
        streams = ["/".join(filter(None, (stream, container.get(NAME)))) for container in containers]
        self._logs = [context.logs.writer(region, log_group, stream) for stream in streams]
        self.servers = [
            ModelServer(spec, log, stream, container.get(NAME, "primary"))
            for spec, log, stream, container in zip(specs, self._logs, streams, containers, strict=True)
        ]

    @property
    def healthy(self) -> bool:
        """True while every server answers pings."""
        return all(server.healthy for server in self.servers)

    def request(
        self, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> tuple[ModelServer, urllib3.BaseHTTPResponse]:
        """Send a request through the containers; return the last one that answered and its unread response.

        As on AWS, an answer's body and content type are the next container's request, Accept is for the last one, and
        an answer that is no success ends the row.

        Raises:
            Unanswered: A container did not answer.
        """
        deadline = time.monotonic() + timeout
        given = dict(headers)
        for server in self.servers:
            last = server is self.servers[-1]
            sent = {name: value for name, value in given.items() if last or name != "Accept"}
            try:
                left = max(0.001, deadline - time.monotonic())
                response = server.request("POST", "/invocations", body, sent, left)
                if last or not 200 <= response.status < 300:
                    break
                body = response.read()
            except urllib3.exceptions.HTTPError as error:
                new = isinstance(error, urllib3.exceptions.NewConnectionError)
                raise Unanswered(server, not new or server is not self.servers[0], error) from error
            given[CONTENT_TYPE] = response.headers.get(CONTENT_TYPE, "application/octet-stream")
        return server, response

    def count(self, difference: int) -> None:
        """Count a request in (1) or out (-1), for routing and graceful stops."""
        with self._lock:
            self.outstanding += difference

    def stop(self) -> None:
        """Stop every server and close their logs."""
        for server in self.servers:
            server.stop()
        for log in self._logs:
            log.close()


def _opt_ml(folder: Path, container: Document) -> Path:
    """Return the folder that a container sees at /opt/ml."""
    return folder / container[NAME] if NAME in container else folder
