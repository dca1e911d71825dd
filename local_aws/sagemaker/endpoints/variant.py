"""A production variant: the servers of one model that share its traffic."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_aws.context import Context
from local_aws.errors import AwsError
from local_aws.execution.capacity import instance_cores
from local_aws.gateway.json_service import Document
from local_aws.sagemaker.endpoints import pipeline
from local_aws.sagemaker.endpoints.pipeline import Pipeline
from local_aws.sagemaker.endpoints.server import ServerFailed

DEFAULT_STARTUP_SECONDS = 480
"""SageMaker's default limit for a container's first healthy ping."""
PICK_SECONDS = 60.0


class Unavailable(Exception):
    """No server of the variant became healthy in time."""


class Replaced(Exception):
    """The variant ended between routing and picking: route again."""


@dataclass(frozen=True)
class VariantSpec:
    """One entry of ProductionVariants with the containers of its model.

    Attributes:
        count: Number of servers.
        serverless_concurrency: MaxConcurrency of a serverless variant, else 0.
    """

    name: str
    containers: Sequence[Document]
    instance_type: str
    count: int
    weight: float
    startup_seconds: float = DEFAULT_STARTUP_SECONDS
    serverless_concurrency: int = 0

    @classmethod
    def from_document(cls, document: Document, containers: Sequence[Document]) -> VariantSpec:
        """Build from an entry of an endpoint configuration."""
        serverless = document.get("ServerlessConfig")
        return cls(
            name=document["VariantName"],
            containers=containers,
            instance_type=instance_type_of(document) or "ml.m5.xlarge",
            count=1 if serverless else document.get("InitialInstanceCount", 1),
            weight=document.get("InitialVariantWeight", 1.0),
            startup_seconds=document.get(
                "ContainerStartupHealthCheckTimeoutInSeconds", DEFAULT_STARTUP_SECONDS
            ),
            serverless_concurrency=serverless["MaxConcurrency"] if serverless else 0,
        )


def instance_type_of(document: Document) -> str | None:
    """Return the instance type of a ProductionVariant, the first of InstancePools; a serverless variant has none."""
    pools = sorted(document.get("InstancePools", []), key=lambda pool: int(pool["Priority"]))
    return str(pools[0]["InstanceType"]) if pools else document.get("InstanceType")


class Variant:
    """The running servers of a variant. Thread-safe."""

    def __init__(self, context: Context, region: str, endpoint: str, spec: VariantSpec, folder: Path) -> None:
        self.spec = spec
        self.weight = spec.weight
        self.desired = spec.count
        self._context, self._region, self._endpoint = context, region, endpoint
        self._folder = folder
        self._lock = threading.Lock()
        self._servers: list[Pipeline] = []
        self._made = 0
        self._next = 0
        self._admitted = 0
        self._ended = False

    @property
    def count(self) -> int:
        """The number of its servers, healthy or not."""
        return len(self._servers)

    @property
    def servers(self) -> list[Pipeline]:
        """Its current servers."""
        with self._lock:
            return list(self._servers)

    def start(self) -> None:
        """Unpack the model and start the servers without waiting for them.

        Raises:
            DataError: The model data cannot be downloaded or unpacked.
        """
        pipeline.prepare(self._context, self._region, self.spec.containers, self._folder)
        self.scale(self.desired)

    def wait_healthy(self, cancelled: Callable[[], bool]) -> None:
        """Wait until every server is healthy.

        Raises:
            ServerFailed: A server did not become healthy.
        """
        for server in (server for row in self.servers for server in row.servers):
            try:
                server.wait_healthy(cancelled)
            except ServerFailed as error:
                raise ServerFailed(
                    f"The {server.container} container for production variant {self.spec.name} did not pass the ping "
                    f"health check. Please check CloudWatch logs for this endpoint. {error}"
                ) from error

    def scale(self, count: int) -> None:
        """Start or stop servers until there are `count`; a stopped server finishes its requests first."""
        self.desired = count
        with self._lock:
            while len(self._servers) < count:
                self._servers.append(self._new_server(count))
            surplus, self._servers = self._servers[count:], self._servers[:count]
        for server in surplus:
            self._end(server)

    def pick(self) -> Pipeline:
        """Wait for a healthy server and return the one with the fewest outstanding requests.

        The request is counted under the lock that removes servers, so no server stops under a request.

        Raises:
            Unavailable: No server became healthy in time.
            Replaced: The variant ended.
        """
        deadline = time.monotonic() + PICK_SECONDS
        while True:
            with self._lock:
                if self._ended:
                    raise Replaced
                healthy = [server for server in self._servers if server.healthy]
                if healthy:
                    self._next += 1
                    start = self._next % len(healthy)
                    rotated = healthy[start:] + healthy[:start]
                    chosen = min(rotated, key=lambda server: server.outstanding)
                    chosen.count(1)
                    return chosen
            if time.monotonic() > deadline or self._context.stopping.is_set():
                raise Unavailable(f"No server of variant {self.spec.name} is healthy.")
            time.sleep(0.05)

    def admit(self) -> None:
        """Count a request in.

        Raises:
            AwsError: ThrottlingException beyond a serverless variant's MaxConcurrency.
        """
        most = self.spec.serverless_concurrency
        with self._lock:
            if most and self._admitted >= most:
                raise AwsError(
                    "ThrottlingException", "Rate exceeded: the variant's MaxConcurrency is reached.", 429
                )
            self._admitted += 1

    def release(self) -> None:
        """Count a request out."""
        with self._lock:
            self._admitted -= 1

    def stop(self) -> None:
        """Stop every server."""
        with self._lock:
            self._ended = True
            servers, self._servers = self._servers, []
        threads = [threading.Thread(target=self._end, args=(server,)) for server in servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _end(self, server: Pipeline) -> None:
        deadline = time.monotonic() + PICK_SECONDS
        while server.outstanding and time.monotonic() < deadline and not self._context.stopping.is_set():
            time.sleep(0.02)
        server.stop()

    def _new_server(self, count: int) -> Pipeline:
        self._made += 1
        cores = max(
            1, min(instance_cores(self.spec.instance_type), self._context.settings.cores // max(1, count))
        )
        return Pipeline(
            self._context,
            self._region,
            self.spec.containers,
            name=f"endpoint {self._region} {self._endpoint} {self.spec.name}-{self._made}-{self._folder.parent.name}",
            folder=self._folder,
            cores=cores,
            startup_seconds=self.spec.startup_seconds,
            log_group=f"/aws/sagemaker/Endpoints/{self._endpoint}",
            stream=f"{self.spec.name}/i-{secrets.token_hex(9)[:17]}",
        )
