"""`--iam enforce`: judge every request by the policies that concern its caller, before any service sees it.

Identity-based policies, permissions boundaries and session policies are evaluated, and the policies of buckets, queues,
topics, KMS keys and roles (trust). `authentication` has verified the signature; `deliveries` judges what services send.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from local_aws.context import Context
from local_aws.ec2.instance import tags_of
from local_aws.errors import AwsError
from local_aws.gateway.bodies import buffered
from local_aws.gateway.responses import Environ, StartResponse, WsgiApp, drain, respond_error
from local_aws.iam import s3_requests, sagemaker_requests, service_requests
from local_aws.iam.authentication import unknown_key
from local_aws.iam.policy import Access, Decision, Grant, granted
from local_aws.iam.principals import ANONYMOUS, ROOT, Principal, may_be_taken, principal_of, trust_of
from local_aws.iam.resource_policies import RECOVERY, is_restricted, policy_of
from local_aws.moto_bridge.apps import protocol
from local_aws.s3.api.bucket import parse_deletions
from local_aws.s3.body import read_document
from local_aws.s3.errors import S3Error
from local_aws.s3.http import Request
from local_aws.s3.post_form import Form, is_form
from local_aws.s3.store import S3Store
from local_aws.sagemaker.endpoints.runtime import operation_of
from local_aws.settings import ACCOUNT_ID

MOST_BYTES = 16 * 2**20
"""Far above the largest request that is read here: objects and invocations are not."""
ASSUME_ROLE = "sts:AssumeRole"


class Gate:
    """A WSGI app in front of a service that lets through what the caller may do."""

    def __init__(self, context: Context, app: WsgiApp, store: S3Store) -> None:
        self._context, self._app, self._store = context, app, store

    def start(self) -> None:
        """Start the service behind."""
        getattr(self._app, "start", lambda: None)()

    def stop(self) -> None:
        """Stop the service behind."""
        getattr(self._app, "stop", lambda: None)()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Refuse a request that IAM policies do not allow; hand others on to the service behind."""
        service = environ["local_aws.service"]
        try:
            self._judge(environ, service, environ["local_aws.region"])
        except AwsError as error:
            drain(environ["wsgi.input"])
            wire = "rest-xml" if service == "s3" else protocol(service)
            return respond_error(start_response, error, wire)
        return self._app(environ, start_response)

    def _judge(self, environ: Environ, service: str, region: str) -> None:
        if service == "s3" and is_form(environ):
            return  # judged by `admit_form`, once its fields are read
        access_key = environ["local_aws.access_key"]
        is_root = access_key == self._context.root_key.id
        if not (is_root and self._context.mark in environ.get("HTTP_USER_AGENT", "")):
            principal = ROOT if is_root else caller(service, access_key)
            for access in self._needs(environ, service, region):
                check(principal, access, service, region, self._store)
        if service == "sagemaker":
            _check_trust(environ)

    def _needs(self, environ: Environ, service: str, region: str) -> Iterator[Access]:
        if service == "s3":
            request = Request.from_environ(environ)
            deletions = []
            if request.method == "POST" and not request.key and request.subresource == "delete":
                environ["local_aws.document"] = read_document(request)
                deletions = parse_deletions(environ["local_aws.document"])["Object"]
            yield from s3_requests.needs(request, deletions)
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


def admit_form(form: Form, access_key: str, root: str, store: S3Store) -> None:
    """Check that the signer of a browser's POST may put the object. Raises AwsError."""
    if access_key != root:
        key = form.fields.get("key", "").replace("${filename}", form.file_name)
        access = Access("s3:PutObject", f"arn:aws:s3:::{form.bucket}/{key}", {})
        check(caller("s3", access_key), access, "s3", "", store)


def caller(service: str, access_key: str) -> Principal:
    """Return the principal of an access key; anonymous requests reach S3 only. Raises AwsError."""
    if not access_key and service == "s3":
        return ANONYMOUS
    principal = principal_of(access_key) if access_key else None
    if principal is None:
        raise unknown_key(service, access_key)
    return principal


def check(principal: Principal, access: Access, service: str, region: str, store: S3Store) -> None:
    """Raise AWS's error when a principal may not do what a request needs."""
    access = replace(access, keys=_with_globals(access, principal, region))
    if access.action == ASSUME_ROLE:
        decision, by = _assumes(principal, access)
    else:
        decision, by = _decide(principal, access, store)
    if decision is Decision.ALLOWED:
        return
    why = (
        f"with an explicit deny in {by}"
        if decision is Decision.EXPLICIT_DENY
        else f"because no {by.removeprefix('an ').removeprefix('a ')} allows the {access.action} action"
    )
    resource = "" if access.resource == "*" else f" on resource: {access.resource}"
    text = (
        f"User: {principal.arn or 'anonymous'} is not authorized to perform: {access.action}{resource} {why}"
    )
    if service == "ec2":
        text = f"You are not authorized to perform this operation. {text}"
        raise AwsError("UnauthorizedOperation", text, status=403)
    if service == "s3":
        raise S3Error("AccessDenied", text)
    if protocol(service) in ("json", "rest-json"):
        raise AwsError("AccessDeniedException", text, status=400)
    raise AwsError("AccessDenied", text, status=403)


def _decide(principal: Principal, access: Access, store: S3Store) -> tuple[Decision, str]:
    """Combine the caller's own policies with that of the resource."""
    document = policy_of(access.resource, store)
    account = ACCOUNT_ID if principal.arn else ""
    grant = granted(document, access, principal.names, account) if document else Grant.NOTHING
    if document and not account and is_restricted(access.resource, document, store):
        return Decision.IMPLICIT_DENY, "a resource-based policy"
    if grant is Grant.DENIED and not (principal.is_root and access.action in RECOVERY):
        return Decision.EXPLICIT_DENY, "a resource-based policy"
    decision, by = principal.decide(access)
    if decision is Decision.EXPLICIT_DENY:
        return decision, by
    if grant is Grant.TO_PRINCIPAL and principal.within_limits(access):
        return Decision.ALLOWED, ""
    if access.action.startswith("kms:") and document is not None and grant is Grant.NOTHING:
        return Decision.IMPLICIT_DENY, "a resource-based policy"
    return decision, by


def _assumes(principal: Principal, access: Access) -> tuple[Decision, str]:
    """Evaluate a role's trust policy, and the caller's own where the trust is in its account."""
    trust = trust_of(access.resource)
    if trust is None:
        return Decision.IMPLICIT_DENY, "a resource-based policy"
    grant = granted(trust, access, principal.names, ACCOUNT_ID)
    if grant is Grant.DENIED:
        return Decision.EXPLICIT_DENY, "a resource-based policy"
    decision, by = principal.decide(access)
    if grant is Grant.NOTHING or decision is Decision.EXPLICIT_DENY:
        return (decision, by) if decision is Decision.EXPLICIT_DENY else (
            Decision.IMPLICIT_DENY, "a resource-based policy"
        )  # fmt: skip
    if grant is Grant.TO_PRINCIPAL and principal.within_limits(access):
        return Decision.ALLOWED, ""
    return decision, by


def _with_globals(access: Access, principal: Principal, region: str) -> Any:
    if access.keys is None:
        return None
    keys = {"aws:sourceip": ("127.0.0.1",), "aws:resourceaccount": (ACCOUNT_ID,), **access.keys}
    if region:
        keys["aws:requestedregion"] = (region,)
    if principal.arn:
        keys["aws:principalarn"] = (principal.role or principal.arn,)
        keys["aws:principalaccount"] = (ACCOUNT_ID,)
    return keys


def _check_trust(environ: Environ) -> None:
    """Raise AWS's ValidationException for a role that SageMaker may not assume."""
    _, params = call_of(environ, "sagemaker")
    for role in sagemaker_requests.roles(params):
        if not may_be_taken(role, sagemaker_requests.SERVICE):
            raise AwsError(
                "ValidationException",
                f"Could not assume role {role}. Please ensure that the role exists and allows principal "
                f"'{sagemaker_requests.SERVICE}' to assume the role.",
            )


def call_of(environ: Environ, service: str) -> tuple[str, dict[str, Any]]:
    """Return operation and parameters of a JSON or query request, whose body stays readable.

    The service behind may read a request in another order than this: one that could be read as two operations, or
    that gives a parameter twice, is refused.

    Raises:
        AwsError: the request is ambiguous or too large.
    """
    body = buffered(environ, MOST_BYTES)
    target = str(environ.get("HTTP_X_AMZ_TARGET", "")).rpartition(".")[2]
    path = str(environ.get("PATH_INFO", ""))
    is_form_body = protocol(service) in ("query", "ec2") or "form-urlencoded" in environ.get(
        "CONTENT_TYPE", ""
    )
    form = _form(body.decode("utf-8", "replace") if is_form_body else "")
    asked = str(environ.get("QUERY_STRING", ""))
    # REST services repeat a name in their query for a list.
    query = _form(asked) if is_form_body else dict(parse_qsl(asked, keep_blank_values=True))
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
    except (ValueError, RecursionError):
        return {}  # the service says what is wrong with it
    return params if isinstance(params, dict) else {}


def _form(text: str) -> dict[str, str]:
    pairs = parse_qsl(text, keep_blank_values=True)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise AwsError("InvalidAction", "The request gives a parameter more than once.")
    return found
