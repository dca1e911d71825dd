"""A service of AWS's JSON protocol, answered by Python functions and checked by botocore's model of it.

    operation = Operations("sagemaker")

    @operation("DescribeModel")
    def describe_model(call: Call) -> Document:
        return call.context.store.get("model", call.region, call.params["ModelName"]).document

    service = JsonService(operation, context)      # a WSGI app; router.register("sagemaker", service)

A handler gets a request that the model found valid, and answers with the response's members (anything else in
the document is dropped by shaping), or raises AwsError. What is not registered answers UnsupportedOperation.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local_aws.errors import AwsError, unsupported
from local_aws.gateway import service_model
from local_aws.gateway.bodies import buffered
from local_aws.gateway.responses import Environ, StartResponse, respond_error, status_line

if TYPE_CHECKING:
    from local_aws.context import Context

logger = logging.getLogger(__name__)

Document = dict[str, Any]
MAX_BODY_BYTES = 16 * 2**20
"""Far above the largest request that AWS's JSON services accept."""


@dataclass(frozen=True)
class Call:
    """One request: operation, validated parameters, signed region, and the context that answers it."""

    context: Context
    region: str
    operation: str
    params: Document

    def arn(self, resource: str, service: str = "sagemaker") -> str:
        """`training-job/a` -> `arn:aws:sagemaker:us-east-1:123456789012:training-job/a`."""
        return self.context.arn(self.region, resource, service)


Handler = Callable[[Call], Document | None]


def page(
    member: str, entries: list[Document], token: str | None, limit: int, token_name: str = "nextToken"
) -> Document:
    """Return one page of entries that are all known; the token is the number of entries before it."""
    begin = int(token) if token and token.isdigit() else 0
    answer: Document = {member: entries[begin : begin + limit]}
    if begin + limit < len(entries):
        answer[token_name] = str(begin + limit)
    return answer


class Operations:
    """The operations of one service that local_aws implements; used as `@operation("StopTrainingJob")`."""

    def __init__(self, service: str) -> None:
        self.model = service_model.load(service)
        self.handlers: dict[str, Handler] = {}

    def __call__(self, name: str) -> Callable[[Handler], Handler]:
        """Register the decorated function as the handler of an operation of the model."""
        if name not in self.model.operations:
            raise ValueError(f"{self.model.service} has no operation {name}")

        def register(handler: Handler) -> Handler:
            self.handlers[name] = handler
            return handler

        return register


class JsonService:
    """A WSGI app that answers `operations`."""

    def __init__(self, operations: Operations, context: Context) -> None:
        self._operations = operations
        self._context = context

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one operation of an AWS JSON protocol, errors included."""
        model = self._operations.model
        try:
            name = self._operation_name(environ)
            params = _read_json(environ)
            answer = self.call(name, params, environ.get("local_aws.region") or self._context.settings.region)
        except AwsError as error:
            return respond_error(start_response, error, model.protocol)
        except Exception:
            logger.exception("%s %s failed", model.service, environ.get("HTTP_X_AMZ_TARGET", ""))
            failure = AwsError("InternalFailure", "local_aws failed to answer; its log says why.", status=500)
            return respond_error(start_response, failure, model.protocol)
        body = json.dumps(answer).encode() if answer is not None else b"{}"
        headers = [
            ("Content-Type", f"application/x-amz-json-{model.json_version}"),
            ("Content-Length", str(len(body))),
            ("x-amzn-RequestId", str(uuid.uuid4())),
        ]
        start_response(status_line(200), headers)
        return [body]

    def call(self, name: str, params: Any, region: str) -> Document:
        """Answer one operation: check, handle, shape. Raises AwsError."""
        model = self._operations.model
        if name not in model.operations:
            raise AwsError(
                "UnknownOperationException", f"{model.service} has no operation {name}.", status=400
            )
        handler = self._operations.handlers.get(name)
        if handler is None:
            raise unsupported(model.service, name)
        model.validate(name, params)
        given = {member: value for member, value in params.items() if value is not None}
        return model.project(name, handler(Call(self._context, region, name, given)) or {})

    def _operation_name(self, environ: Environ) -> str:
        prefix, _, name = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")
        if not name or prefix != self._operations.model.target_prefix:
            raise AwsError(
                "UnknownOperationException",
                f"X-Amz-Target must be {self._operations.model.target_prefix}.<operation>.",
            )
        return str(name)


def _read_json(environ: Environ) -> Any:
    try:
        params = json.loads(buffered(environ, MAX_BODY_BYTES) or b"{}")
    except (ValueError, RecursionError) as error:
        raise AwsError("SerializationException", f"The request is not JSON: {error}") from error
    if not isinstance(params, dict):
        raise AwsError("SerializationException", "The request must be a JSON object")
    return params
