"""sagemaker-runtime: InvokeEndpoint, its streaming variant, and InvokeEndpointAsync, as a WSGI app."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

from local_aws.context import Context
from local_aws.errors import AwsError
from local_aws.gateway import service_model
from local_aws.gateway.responses import Environ, StartResponse, respond_error, status_line
from local_aws.sagemaker.endpoints import event_stream
from local_aws.sagemaker.endpoints.asynchronous import AsyncQueue
from local_aws.sagemaker.endpoints.capture import Capture, captured
from local_aws.sagemaker.endpoints.endpoint import Cancelled, Endpoint, Endpoints
from local_aws.sagemaker.endpoints.metrics import InvocationMetrics
from local_aws.sagemaker.endpoints.pipeline import Pipeline, Unanswered
from local_aws.sagemaker.endpoints.server import ModelServer
from local_aws.sagemaker.endpoints.variant import Replaced, Unavailable, Variant
from local_aws.settings import ACCOUNT_ID

logger = logging.getLogger(__name__)

INVOKE_SECONDS = 60.0
"""SageMaker's limit for a container's answer."""
LARGEST_BODY = 6 * 1024 * 1024

_PATHS = {
    "invocations": "InvokeEndpoint",
    "invocations-response-stream": "InvokeEndpointWithResponseStream",
    "async-invocations": "InvokeEndpointAsync",
}
_PATH = re.compile(r"^/endpoints/([^/]+)/([a-z-]+)$")
_UNSUPPORTED = {
    "TargetModel": "multi-model endpoints",
    "TargetContainerHostname": "multi-container endpoints",
    "InferenceComponentName": "inference components",
    "SessionId": "stateful sessions",
}


@dataclass(frozen=True)
class Answer:
    """A container's answer. The body of `response` is not read yet."""

    variant: Variant
    row: Pipeline
    server: ModelServer
    response: urllib3.BaseHTTPResponse
    began: float
    sent: float

    def close(self) -> None:
        """Release the connection and the server's slot."""
        self.response.release_conn()
        self.row.count(-1)
        self.variant.release()


def operation_of(environ: Environ) -> tuple[str, str]:
    """Return the operation and the endpoint's name of a request.

    Raises:
        AwsError: UnknownOperationException.
    """
    match = _PATH.match(environ.get("PATH_INFO", ""))
    operation = _PATHS.get(match.group(2)) if match else None
    if match is None or operation is None or environ["REQUEST_METHOD"] != "POST":
        raise AwsError("UnknownOperationException", "sagemaker-runtime has no such operation.", 404)
    return operation, match.group(1)


class Runtime:
    """The WSGI app."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._model = service_model.load("sagemaker-runtime")
        self._metrics = InvocationMetrics()
        self._capture = Capture(context)
        self._async = AsyncQueue(context, self._invoke_for_queue)

    def start(self) -> None:
        """Start the background work of data capture and async inference."""
        self._capture.start()
        self._async.start()

    def stop(self) -> None:
        """Flush captured data and stop the queue."""
        self._async.stop()
        self._capture.stop()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer InvokeEndpoint, InvokeEndpointAsync or InvokeEndpointWithResponseStream."""
        try:
            body = _read(environ)
            operation, params = self._parse(environ)
            region = environ.get("local_aws.region") or self._context.settings.region
            if operation == "InvokeEndpointAsync":
                return self._accept(region, params, start_response)
            if operation == "InvokeEndpointWithResponseStream":
                return self._stream(region, params, body, start_response)
            return self._invoke(region, params, body, start_response)
        except AwsError as error:
            return respond_error(start_response, error, "rest-json")
        except Exception:
            logger.exception("sagemaker-runtime failed")
            failure = AwsError("InternalFailure", "local_aws failed to answer; its log says why.", 500)
            return respond_error(start_response, failure, "rest-json")

    # --- the three operations ---

    def _invoke(
        self, region: str, params: dict[str, Any], body: bytes, start_response: StartResponse
    ) -> list[bytes]:
        answer, content, endpoint = self._ask(region, params, body)
        inference_id = params.get("InferenceId", "")
        self._capture.take(
            captured(endpoint, answer.variant.spec.name, body, content, params, answer.response.headers),
            inference_id,
        )
        headers = _answer_headers(answer, "Content-Type")
        headers.append(("Content-Length", str(len(content))))
        start_response(status_line(200), headers)
        return [content]

    def _stream(
        self, region: str, params: dict[str, Any], body: bytes, start_response: StartResponse
    ) -> Iterator[bytes]:
        endpoint = self._endpoint(region, params["EndpointName"])
        answer = self._send(endpoint, params, body)
        if not 200 <= answer.response.status < 300:
            self._finish(endpoint, answer, self._content(endpoint, answer))
        headers = _answer_headers(answer, "X-Amzn-SageMaker-Content-Type")
        headers.append(("Content-Type", "application/vnd.amazon.eventstream"))
        start_response(status_line(200), headers)
        return self._events(endpoint, answer)

    def _events(self, endpoint: Endpoint, answer: Answer) -> Iterator[bytes]:
        try:
            for chunk in answer.response.stream(65_536):
                yield event_stream.event("PayloadPart", chunk)
            self._record(endpoint, answer, 200)
        except urllib3.exceptions.HTTPError as error:
            self._record(endpoint, answer, 500)
            yield event_stream.exception(
                "ModelStreamError", {"Message": str(error), "ErrorCode": "StreamBroken"}
            )
        finally:
            answer.close()

    def _accept(self, region: str, params: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        endpoint = self._endpoint(region, params["EndpointName"])
        accepted = self._async.accept(region, params, endpoint.fleets[0])
        body = json.dumps({"InferenceId": accepted.inference_id}).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("x-amzn-RequestId", str(uuid.uuid4())),
            ("X-Amzn-SageMaker-OutputLocation", accepted.output),
            ("X-Amzn-SageMaker-FailureLocation", accepted.failure),
        ]
        start_response(status_line(202), headers)
        return [body]

    def _invoke_for_queue(
        self, region: str, params: dict[str, Any], body: bytes, timeout: float
    ) -> tuple[bytes, str]:
        answer, content, _ = self._ask(region, params, body, timeout)
        return content, answer.response.headers.get("Content-Type", "application/octet-stream")

    # --- inside ---

    def _ask(
        self, region: str, params: dict[str, Any], body: bytes, timeout: float = INVOKE_SECONDS
    ) -> tuple[Answer, bytes, Endpoint]:
        """Send a request and read the whole answer.

        Raises:
            AwsError: ModelError when the status is not 2xx.
        """
        endpoint = self._endpoint(region, params["EndpointName"])
        answer = self._send(endpoint, params, body, timeout)
        content = self._content(endpoint, answer)
        self._finish(endpoint, answer, content)
        return answer, content, endpoint

    def _content(self, endpoint: Endpoint, answer: Answer) -> bytes:
        """Read the whole answer and close it.

        Raises:
            AwsError: ModelError when the connection breaks.
        """
        try:
            return answer.response.read()
        except urllib3.exceptions.HTTPError as error:
            raise self._unanswered(endpoint, answer.variant, answer.server, error) from error
        finally:
            answer.close()

    def _send(
        self, endpoint: Endpoint, params: dict[str, Any], body: bytes, timeout: float = INVOKE_SECONDS
    ) -> Answer:
        began = time.monotonic()
        while True:
            try:
                variant = endpoint.route(params.get("TargetVariant"))
                row = variant.pick()
            except Replaced:
                continue
            except Cancelled:
                raise _not_found(params["EndpointName"]) from None
            except Unavailable as error:
                raise AwsError("ServiceUnavailable", str(error), 503) from None
            try:
                variant.admit()
            except AwsError:
                row.count(-1)
                raise
            sent = time.monotonic()
            try:
                server, response = row.request(body, _forwarded(params), timeout)
                return Answer(variant, row, server, response, began, sent)
            except Unanswered as error:
                row.count(-1)
                variant.release()
                if error.reached:
                    raise self._unanswered(endpoint, variant, error.server, error.error) from error
                error.server.suspect()  # it saw nothing of the request: another server may have it

    def _finish(self, endpoint: Endpoint, answer: Answer, content: bytes) -> None:
        status = answer.response.status
        self._record(endpoint, answer, status)
        if 200 <= status < 300:
            return
        kind = "client" if 400 <= status < 500 else "server"
        text = content.decode("utf-8", "replace")[:2048]
        group = f"/aws/sagemaker/Endpoints/{endpoint.name}"
        message = (
            f'Received {kind} error ({status}) from {answer.server.container} with message "{text}". See https://{endpoint.region}.'
            f"console.aws.amazon.com/cloudwatch/home?region={endpoint.region}#logEventViewer:group={group} in account "
            f"{ACCOUNT_ID} for more information."
        )
        raise _model_error(endpoint, answer.server, message, status, text)

    def _unanswered(
        self, endpoint: Endpoint, variant: Variant, server: ModelServer, error: Exception
    ) -> AwsError:
        name = variant.spec.name
        self._metrics.record(
            endpoint.region, endpoint.name, name, 500, variant.count, INVOKE_SECONDS * 1e6, 0.0
        )
        if isinstance(error, urllib3.exceptions.ReadTimeoutError):
            message = (
                f"Your invocation timed out while waiting for a response from container {server.container}."
            )
        else:
            server.suspect()
            message = f"The container {server.container} closed the connection without an answer ({error})."
        return _model_error(endpoint, server, message, 0, "")

    def _record(self, endpoint: Endpoint, answer: Answer, status: int) -> None:
        model_us = (time.monotonic() - answer.sent) * 1e6
        overhead_us = (answer.sent - answer.began) * 1e6
        variant = answer.variant
        self._metrics.record(
            endpoint.region, endpoint.name, variant.spec.name, status, variant.count, model_us, overhead_us
        )

    def _endpoint(self, region: str, name: str) -> Endpoint:
        endpoint = self._context.part(Endpoints).get(region, name)
        if endpoint is None or not endpoint.fleets:
            raise _not_found(name)
        return endpoint

    def _parse(self, environ: Environ) -> tuple[str, dict[str, Any]]:
        operation, endpoint = operation_of(environ)
        params = self._header_members(operation, environ)
        params["EndpointName"] = endpoint
        try:
            body = (
                {} if operation == "InvokeEndpointAsync" else {"Body": ""}
            )  # its length is checked by _read
            self._model.validate(operation, params | body)
        except AwsError as error:
            raise AwsError("ValidationError", error.message) from None
        for member, feature in _UNSUPPORTED.items():
            if member in params:
                raise AwsError("ValidationError", f"local_aws has no {feature}: leave {member} out.")
        return operation, params

    def _header_members(self, operation: str, environ: Environ) -> dict[str, Any]:
        params: dict[str, Any] = {}
        shape_of_input: Any = self._model.operation(operation).input_shape
        for name, shape in shape_of_input.members.items():
            if shape.serialization.get("location") != "header":
                continue
            key = shape.serialization["name"].upper().replace("-", "_")
            value = environ.get("CONTENT_TYPE" if key == "CONTENT_TYPE" else f"HTTP_{key}")
            if value:
                params[name] = int(value) if shape.type_name == "integer" and value.isdigit() else value
        return params


def _read(environ: Environ) -> bytes:
    length = environ.get("CONTENT_LENGTH")
    if length and int(length) > LARGEST_BODY:
        stream = environ["wsgi.input"]
        while stream.read(1024 * 1024):
            pass
        raise AwsError("ValidationError", f"The request's body is larger than {LARGEST_BODY} bytes.", 413)
    body: bytes = environ["wsgi.input"].read(int(length)) if length else environ["wsgi.input"].read()
    return body


def _forwarded(params: Mapping[str, Any]) -> dict[str, str]:
    headers = {"Content-Type": params.get("ContentType", "application/octet-stream")}
    for member, header in (
        ("Accept", "Accept"),
        ("CustomAttributes", "X-Amzn-SageMaker-Custom-Attributes"),
        ("InferenceId", "X-Amzn-SageMaker-Inference-Id"),
    ):
        if member in params:
            headers[header] = params[member]
    return headers


def _answer_headers(answer: Answer, content_type: str) -> list[tuple[str, str]]:
    given = answer.response.headers
    headers = [
        (content_type, given.get("Content-Type", "application/octet-stream")),
        ("x-Amzn-Invoked-Production-Variant", answer.variant.spec.name),
        ("x-amzn-RequestId", str(uuid.uuid4())),
    ]
    attributes = given.get("X-Amzn-SageMaker-Custom-Attributes")
    if attributes:
        headers.append(("X-Amzn-SageMaker-Custom-Attributes", attributes))
    return headers


def _model_error(endpoint: Endpoint, server: ModelServer, message: str, status: int, text: str) -> AwsError:
    stream = (
        f"arn:aws:logs:{endpoint.region}:{ACCOUNT_ID}:log-group:/aws/sagemaker/Endpoints/{endpoint.name}"
        f":log-stream:{server.log_stream}"
    )
    fields = {"OriginalStatusCode": status, "OriginalMessage": text, "LogStreamArn": stream}
    return AwsError("ModelError", message, 424, fields)


def _not_found(name: str) -> AwsError:
    return AwsError("ValidationError", f"Endpoint {name} of account {ACCOUNT_ID} not found.")
