"""A running transform job: starts the model's servers, sends every object through them, writes answers to S3."""

from __future__ import annotations

import gzip
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import urllib3

from local_aws.context import Context
from local_aws.sagemaker import s3_data
from local_aws.sagemaker.endpoints import pipeline
from local_aws.sagemaker.endpoints.pipeline import Pipeline, Unanswered
from local_aws.sagemaker.endpoints.server import ServerFailed
from local_aws.sagemaker.jobs.job import Job, JobFailed, cut
from local_aws.sagemaker.models import ROLE
from local_aws.sagemaker.s3_data import DataError, S3Object
from local_aws.sagemaker.transform.batches import (
    BatchError,
    BatchPlan,
    answer,
    assemble,
    batches,
    body,
    records,
)
from local_aws.state.resources import Document, Resource

KIND = "transform-job"
LOG_GROUP = "/aws/sagemaker/TransformJobs"
STARTUP_SECONDS = 480.0
INVOCATION_SECONDS = 600
RETRIES = 3


class TransformJob(Job):
    """A transform job. `containers` are the model's, their packages resolved."""

    kind = KIND

    def __init__(self, context: Context, resource: Resource, containers: list[Document]) -> None:
        super().__init__(context, resource)
        self._containers = containers
        self._plan = BatchPlan.of(self.request)
        self._s3 = context.client("s3", self.region, containers[0][ROLE])
        resources = self.request["TransformResources"]
        self._instances, self._instance_type = resources["InstanceCount"], resources["InstanceType"]
        self._servers: list[Pipeline] = []

    def execute(self) -> None:
        """Run from capacity to the last output."""
        cores = self.context.capacity.share(self._instance_type, self._instances)
        with self.take_cores(cores * self._instances):
            self.update({"TransformStartTime": time.time()})
            try:
                self._transform(cores)
            except (DataError, BatchError) as error:
                raise JobFailed(f"ClientError: {error}") from error
            except ServerFailed as error:
                raise JobFailed(cut(f"AlgorithmError: {error}")) from error
            finally:
                for server in self._servers:
                    server.stop()
        self.mark("Completed")

    def _transform(self, cores: int) -> None:
        source = self.request["TransformInput"]["DataSource"]["S3DataSource"]
        objects = s3_data.list_source(self._s3, source["S3Uri"], source["S3DataType"])
        for number in range(self._instances):
            folder = self.folder / f"instance-{number}"
            pipeline.prepare(self.context, self.region, self._containers, folder)
            self._servers.append(self._server(number, cores))
        for server in (server for row in self._servers for server in row.servers):
            server.wait_healthy(self.should_end)
        parallel = max(1, self.request.get("MaxConcurrentTransforms", 1))
        with ThreadPoolExecutor(self._instances) as pool:
            tasks = [
                pool.submit(self._run_instance, server, objects[number :: self._instances], parallel)
                for number, server in enumerate(self._servers)
            ]
            for task in tasks:
                task.result()
        self.check_running()

    def _run_instance(self, server: Pipeline, objects: list[S3Object], parallel: int) -> None:
        with ThreadPoolExecutor(parallel) as pool:
            for entry in objects:
                if self.should_end():
                    return
                self._run_object(server, entry, pool)

    def _run_object(self, server: Pipeline, entry: S3Object, pool: ThreadPoolExecutor) -> None:
        content = s3_data.read_object(self._s3, f"s3://{entry.bucket}/{entry.key}")
        if self.request["TransformInput"].get("CompressionType") == "Gzip":
            content = gzip.decompress(content)
        found = list(batches(self._plan, records(self._plan, content)))
        answers = list(pool.map(lambda batch: self._invoke(server, entry, batch), found))
        bucket, prefix = s3_data.parse_uri(self.request["TransformOutput"]["S3OutputPath"])
        key = s3_data.join(prefix, f"{entry.relative}.out")
        self._s3.put_object(Bucket=bucket, Key=key, Body=assemble(self._plan, answers))

    def _invoke(self, server: Pipeline, entry: S3Object, batch: list[bytes]) -> bytes:
        client = self.request.get("ModelClientConfig", {})
        headers = {"X-Amzn-SageMaker-Transform-Job": self.name}
        if self._plan.content_type:
            headers["Content-Type"] = self._plan.content_type
        if self.request["TransformOutput"].get("Accept"):
            headers["Accept"] = self.request["TransformOutput"]["Accept"]
        failure = ""
        for attempt in range(client.get("InvocationsMaxRetries", RETRIES) + 1):
            self.check_running()
            try:
                answering, response = server.request(
                    body(self._plan, batch),
                    headers,
                    client.get("InvocationsTimeoutInSeconds", INVOCATION_SECONDS),
                )
                data = response.read()
            except (Unanswered, urllib3.exceptions.HTTPError) as error:
                failure = f"{error}"
                time.sleep(min(0.1 * 2**attempt, 2.0))
                continue
            if response.status == 200:
                return answer(self._plan, batch, data)
            text = data[:300].decode("utf-8", "replace")
            failure = f"the {answering.container} container answered status {response.status}: {text}"
            if response.status < 500:
                break
        raise JobFailed(cut(f"AlgorithmError: {entry.key}: {failure}"))

    def _server(self, number: int, cores: int) -> Pipeline:
        return Pipeline(
            self.context,
            self.region,
            self._containers,
            name=f"transform {self.region} {self.name} {number}",
            folder=self.folder / f"instance-{number}",
            cores=cores,
            startup_seconds=STARTUP_SECONDS,
            env={
                "SAGEMAKER_BATCH": "true",
                "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(self._plan.max_bytes // 2**20),
                "SAGEMAKER_BATCH_STRATEGY": self._plan.strategy,
                "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(self.request.get("MaxConcurrentTransforms", 1)),
                **self.request.get("Environment", {}),
            },
            log_group=LOG_GROUP,
            stream=f"{self.name}/i-{secrets.token_hex(9)[:17]}",
        )
