"""`--iam enforce`: every request is judged by the policies of whoever signed it, before any service sees it.

Identity-based policies, permissions boundaries and session policies are evaluated; resource-based policies (of
buckets, queues, keys) are not. Access keys are looked up; signatures are not recomputed, for whoever can reach
loopback could read the keys as well.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

from local_aws.context import Context
from local_aws.ec2.instance import tags_of
from local_aws.errors import AwsError
from local_aws.gateway.responses import Environ, StartResponse, WsgiApp, drain, respond_error
from local_aws.iam import s3_requests, sagemaker_requests, service_requests
from local_aws.iam.policy import Access, Decision
from local_aws.iam.principals import ROOT, Principal, may_be_taken, principal_of
from local_aws.moto_bridge.apps import protocol
from local_aws.s3.errors import S3Error
from local_aws.s3.http import Request
from local_aws.sagemaker.endpoints.runtime import operation_of

MOST_BYTES = 16 * 2**20
"""Far above the largest request that is read here: objects and invocations are not."""


class Gate:
    """Before a service's app: lets through what the caller may do. Anyone may use a presigned or anonymous URL only
    as whoever signed it; nobody's requests are denied.
    """

    def __init__(self, context: Context, app: WsgiApp) -> None:
        self._context, self._app = context, app

    def start(self) -> None:
        """Start the service behind."""
        getattr(self._app, "start", lambda: None)()

    def stop(self) -> None:
        """Stop the service behind."""
        getattr(self._app, "stop", lambda: None)()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        service, region = environ["local_aws.service"], environ["local_aws.region"]
        try:
            principal = self._principal(service, environ["local_aws.access_key"])
            if not principal.is_root:
                for access in self._needs(environ, service, region):
                    check(principal, access, service)
            if service == "sagemaker":
                _check_trust(environ)
        except AwsError as error:
            drain(environ["wsgi.input"])
            return _refuse(start_response, service, error)
        return self._app(environ, start_response)

    def _principal(self, service: str, access_key: str) -> Principal:
        if access_key == self._context.root_key.id:
            return ROOT
        principal = principal_of(access_key) if access_key else None
        if principal is None:
            raise unknown_key(service, access_key)
        return principal

    def _needs(self, environ: Environ, service: str, region: str) -> Iterator[Access]:
        if service == "s3":
            request = Request.from_environ(environ)
            deletes = request.method == "POST" and "delete" in request.query
            yield from s3_requests.needs(request, _read(environ) if deletes else b"")
        elif service == "sagemaker-runtime":
            operation, endpoint = operation_of(environ)
            yield from sagemaker_requests.needs(
                operation, {"EndpointName": endpoint}, region, self._context.store.tags
            )
        elif service == "sagemaker":
            operation, params = call_of(environ, service)
            yield from sagemaker_requests.needs(operation, params, region, self._context.store.tags)
        else:
            operation, params = call_of(environ, service)
            yield from service_requests.needs(
                service, operation, params, region, lambda name: tags_of(region, name)
            )


def _check_trust(environ: Environ) -> None:
    """Raise AWS's ValidationException for a role that SageMaker may not take, whoever hands it over."""
    _, params = call_of(environ, "sagemaker")
    for role in sagemaker_requests.roles(params):
        if not may_be_taken(role, sagemaker_requests.SERVICE):
            raise AwsError(
                "ValidationException",
                f"Could not assume role {role}. Please ensure that the role exists and allows principal "
                f"'{sagemaker_requests.SERVICE}' to assume the role.",
            )


def check(principal: Principal, access: Access, service: str) -> None:
    """Raise AWS's error when a principal may not do what a request needs."""
    decision, by = principal.decide(access)
    if decision is Decision.ALLOWED:
        return
    why = (
        f"with an explicit deny in {by}"
        if decision is Decision.EXPLICIT_DENY
        else f"because no {by.removeprefix('an ').removeprefix('a ')} allows the {access.action} action"
    )
    resource = "" if access.resource == "*" else f" on resource: {access.resource}"
    text = f"User: {principal.arn} is not authorized to perform: {access.action}{resource} {why}"
    if service == "ec2":
        text = f"You are not authorized to perform this operation. {text}"
        raise AwsError("UnauthorizedOperation", text, status=403)
    if service == "s3":
        raise S3Error("AccessDenied", text)
    if protocol(service) in ("json", "rest-json"):
        raise AwsError("AccessDeniedException", text, status=400)
    raise AwsError("AccessDenied", text, status=403)


def unknown_key(service: str, access_key: str) -> AwsError:
    """What AWS answers to a key that it does not know."""
    if service == "s3":
        if not access_key:
            return S3Error("AccessDenied")
        text = "The AWS Access Key Id you provided does not exist in our records."
        return AwsError("InvalidAccessKeyId", text, status=403, fields={"AWSAccessKeyId": access_key})
    if service == "ec2":
        return AwsError("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
    json_error = protocol(service) in ("json", "rest-json")
    code = "UnrecognizedClientException" if json_error else "InvalidClientTokenId"
    return AwsError(
        code, "The security token included in the request is invalid.", 400 if json_error else 403
    )


def call_of(environ: Environ, service: str) -> tuple[str, dict[str, Any]]:
    """Operation and parameters of a JSON or query request, whose body stays readable.

    The service behind may read a request in another order than this: one that could be read as two operations, or
    that gives a parameter twice, is refused. Raises AwsError.
    """
    body = _read(environ)
    target = str(environ.get("HTTP_X_AMZ_TARGET", "")).rpartition(".")[2]
    path = str(environ.get("PATH_INFO", ""))
    is_form = protocol(service) in ("query", "ec2") or "form-urlencoded" in environ.get("CONTENT_TYPE", "")
    form = _form(body.decode("utf-8", "replace") if is_form else "")
    asked = str(environ.get("QUERY_STRING", ""))
    # REST services repeat a name in their query for a list.
    query = _form(asked) if is_form else dict(parse_qsl(asked, keep_blank_values=True))
    named = [
        name
        for name in (
            target,
            form.pop("Action", ""),
            query.pop("Action", ""),
            path.rpartition("/operation/")[2] if "/operation/" in path else "",
        )
        if name
    ]
    if len(named) > 1 or set(form) & set(query):
        raise AwsError("InvalidAction", "The request names its operation or a parameter more than once.")
    if target:
        return target, _json(body)
    return (named[0] if named else ""), {**query, **form}


def _json(body: bytes) -> dict[str, Any]:
    try:
        params = json.loads(body or b"{}")
    except ValueError:
        return {}  # the service says what is wrong with it
    return params if isinstance(params, dict) else {}


def _form(text: str) -> dict[str, str]:
    pairs = parse_qsl(text, keep_blank_values=True)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise AwsError("InvalidAction", "The request gives a parameter more than once.")
    return found


def _read(environ: Environ) -> bytes:
    """The whole body; it stays readable."""
    length = environ.get("CONTENT_LENGTH")
    if length and int(length) > MOST_BYTES:
        raise AwsError("RequestEntityTooLarge", f"A request is at most {MOST_BYTES} bytes.", status=413)
    body: bytes = (
        environ["wsgi.input"].read(int(length)) if length else environ["wsgi.input"].read(MOST_BYTES)
    )
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    return body


def _refuse(start_response: StartResponse, service: str, error: AwsError) -> Iterable[bytes]:
    wire = "rest-xml" if service == "s3" else protocol(service)
    return respond_error(start_response, error, wire)
