"""Asynchronous inference: requests queue on disk, answers go to S3, SNS announces the outcome."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.context import NO_ROLE, Context
from local_aws.errors import AwsError
from local_aws.gateway.responses import iso_time
from local_aws.sagemaker.endpoints.fleet import Fleet
from local_aws.sagemaker.s3_data import DataError, join, parse_uri, read_object
from local_aws.state.resources import Missing, Resource

logger = logging.getLogger(__name__)

KIND = "async-invocation"
WORKERS = 8
DEFAULT_TTL_SECONDS = 21_600
DEFAULT_TIMEOUT_SECONDS = 900

Invoke = Callable[[str, dict[str, Any], bytes, float], tuple[bytes, str]]
"""(region, parameters, body, timeout) -> (answer, content type); raises AwsError."""


@dataclass(frozen=True)
class Accepted:
    """The answer of InvokeEndpointAsync; `failure` is "" without an S3FailurePath."""

    inference_id: str
    output: str
    failure: str


class AsyncQueue:
    """Accepted requests without an answer yet. They survive a restart of local_aws."""

    def __init__(self, context: Context, invoke: Invoke) -> None:
        self._context = context
        self._invoke = invoke
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="async inference")

    def start(self) -> None:
        """Queue the requests that an earlier process left."""
        for resource in self._context.store.all(KIND):
            self._pool.submit(self._work, resource)

    def stop(self) -> None:
        """Keep requests that have not begun for the next start."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def accept(self, region: str, params: dict[str, Any], fleet: Fleet) -> Accepted:
        """Record a request and queue it.

        Raises:
            AwsError: ValidationError for an endpoint that is not asynchronous.
        """
        settings = fleet.config.get("AsyncInferenceConfig")
        if settings is None:
            raise AwsError(
                "ValidationError",
                f"Endpoint {params['EndpointName']} is not asynchronous: its config has no AsyncInferenceConfig.",
            )
        output = settings["OutputConfig"]
        inference_id = params.get("InferenceId") or str(uuid.uuid4())
        accepted = Accepted(
            inference_id,
            _location(output.get("S3OutputPath", ""), params, ".out"),
            _location(output.get("S3FailurePath", ""), params, "-error.out"),
        )
        name = uuid.uuid4().hex
        document = {
            "Params": params,
            "Accepted": vars(accepted),
            "Topics": output.get("NotificationConfig", {}),
            "Received": time.time(),
            "Role": fleet.role,
        }
        arn = self._context.arn(region, f"{KIND}/{name}")
        resource = self._context.store.create(Resource(KIND, region, name, arn, document))
        self._pool.submit(self._work, resource)
        return accepted

    def _work(self, resource: Resource) -> None:
        try:
            self._answer(resource)
        except Exception:
            logger.exception("an asynchronous request failed inside local_aws")
            return
        if not self._context.stopping.is_set():
            try:
                self._context.store.delete(KIND, resource.region, resource.name)
            except Missing:
                return

    def _answer(self, resource: Resource) -> None:
        document = resource.document
        params, accepted = document["Params"], Accepted(**document["Accepted"])
        s3 = self._client("s3", resource)
        try:
            ttl = params.get("RequestTTLSeconds", DEFAULT_TTL_SECONDS)
            if time.time() - document["Received"] > ttl:
                raise AwsError("ModelError", f"The request waited longer than its {ttl} seconds.")
            body = read_object(s3, params["InputLocation"])
            timeout = float(params.get("InvocationTimeoutSeconds", DEFAULT_TIMEOUT_SECONDS))
            content, content_type = self._invoke(resource.region, params, body, timeout)
        except (AwsError, DataError) as error:
            if self._context.stopping.is_set():
                return
            message = error.message if isinstance(error, AwsError) else str(error)
            self._put(s3, accepted.failure, message.encode(), "text/plain")
            self._tell(resource, "ErrorTopic", {"failureReason": message, "outputLocation": accepted.failure})
            return
        self._put(s3, accepted.output, content, content_type)
        self._tell(resource, "SuccessTopic", {"contentType": content_type, "outputLocation": accepted.output})

    def _client(self, service: str, resource: Resource) -> Any:
        return self._context.client(service, resource.region, resource.document.get("Role", NO_ROLE))

    def _put(self, s3: Any, location: str, body: bytes, content_type: str) -> None:
        if not location:
            return
        bucket, key = parse_uri(location)
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)
        except (ClientError, BotoCoreError) as error:
            logger.warning(
                "the answer to an asynchronous request could not be written to %s: %s", location, error
            )

    def _tell(self, resource: Resource, topic: str, outcome: dict[str, str]) -> None:
        arn = resource.document["Topics"].get(topic)
        if not arn:
            return
        params, accepted = resource.document["Params"], resource.document["Accepted"]
        message = {
            "awsRegion": resource.region,
            "eventTime": iso_time(time.time()),
            "receivedTime": iso_time(resource.document["Received"]),
            "invocationStatus": "Completed" if topic == "SuccessTopic" else "Failed",
            "requestParameters": {
                "endpointName": params["EndpointName"],
                "inputLocation": params["InputLocation"],
                "contentType": params.get("ContentType", ""),
            },
            "responseParameters": outcome,
            "inferenceId": accepted["inference_id"],
            "eventVersion": "1.0",
            "eventSource": "aws:sagemaker",
            "eventName": "InferenceResult",
        }
        try:
            self._client("sns", resource).publish(TopicArn=arn, Message=json.dumps(message))
        except (ClientError, BotoCoreError) as error:
            logger.warning(
                "the outcome of an asynchronous request could not be published to %s: %s", arn, error
            )


def _location(path: str, params: dict[str, Any], suffix: str) -> str:
    if not path:
        return ""
    bucket, prefix = parse_uri(path)
    name = params.get("Filename") or f"{uuid.uuid4()}{suffix}"
    return f"s3://{bucket}/{join(prefix, *filter(None, [params.get('S3OutputPathExtension', '').strip('/')]), name)}"
