"""The front door: which service a request is for, and the app that answers it.

A `Service` is a WSGI app: `callable(environ, start_response)`. `router.register("ec2", app)` gives it every
request whose SigV4 credential scope names `ec2`; the environ then holds

    local_aws.service      the signing name, "sagemaker-runtime" for calls of /endpoints/...
    local_aws.region       the region of the scope, or the configured one
    local_aws.access_key   the access key id, "" for anonymous requests
    local_aws.credential   the whole credential (`gateway.credentials`)

A service may also have `start()`, called once the server listens (recover state, start threads), and
`stop()`, called before the process ends. Until all have started only our own calls are answered; others get 503
and try again. Requests under /_local_aws/ are ours: `router.admin("health", handler)`.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

from local_aws.errors import AwsError
from local_aws.gateway.credentials import credential_of
from local_aws.gateway.doors import Doors
from local_aws.gateway.responses import Environ, StartResponse, drain, respond, respond_error, respond_json

logger = logging.getLogger(__name__)

ADMIN_PREFIX = "/_local_aws/"
_OPEN_PAGES = frozenset({"health"})
AdminHandler = Callable[[str, str, dict[str, str]], Any]
"""(method, rest of the path, query parameters) -> a JSON document."""


class Service(Protocol):
    """An app that `Router.register` accepts."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request as a WSGI app does."""


@dataclass(frozen=True)
class Scope:
    """The service a request is for, its region, and the access key that signed it."""

    service: str
    region: str
    access_key: str


_AMAZON_HOST = re.compile(r"^(?:.+\.)?([a-z0-9-]+)\.(?:([a-z]{2}-[a-z-]+-\d)\.)?amazonaws\.com(?::\d+)?$")
_TARGETS = {
    "SageMaker": "sagemaker",
    "AmazonSSM": "ssm",
    "Logs_20140328": "logs",
    "AWSEvents": "events",
    "AmazonSQS": "sqs",
    "GraniteServiceVersion20100801": "monitoring",
    "AnyScaleFrontendService": "application-autoscaling",
    "secretsmanager": "secretsmanager",
    "TrentService": "kms",
}
_UNSIGNED_ACTIONS = re.compile(r"(?:^|&)Action=AssumeRoleWith(?:WebIdentity|SAML)(?:&|$)")


def scope_of(environ: Environ, default_region: str) -> Scope:
    """Return the service, region and access key of a request.

    Looks at the SigV4 scope of the Authorization header or (presigned) of the query, then at X-Amz-Target, then at
    an amazonaws.com Host; the rest is S3, the only service that answers anonymous requests and SigV2.
    """
    credential = credential_of(environ)
    environ["local_aws.credential"] = credential
    service = credential.service or _unsigned_service(environ)
    if service == "sagemaker" and environ.get("PATH_INFO", "").startswith("/endpoints/"):
        service = "sagemaker-runtime"
    return Scope(service, credential.region or default_region, credential.access_key)


def _unsigned_service(environ: Environ) -> str:
    target = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")[0]
    if target in _TARGETS:
        return _TARGETS[target]
    if _UNSIGNED_ACTIONS.search(environ.get("QUERY_STRING", "")):
        return "sts"
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        # Web identity calls carry the action in the body, which must stay unread here; S3 has no such
        # requests.
        return "sts"
    host = _AMAZON_HOST.match(environ.get("HTTP_HOST", "").lower())
    return host.group(1) if host else "s3"


class Router:
    """The WSGI app of the whole process."""

    def __init__(self, default_region: str, own: str, doors: Doors | None = None, token: str = "") -> None:
        """Create a router without services.

        Args:
            default_region: the region of requests that name none.
            own: the mark in the user agent of requests that services send each other while they start.
            doors: the hosts and origins to answer.
            token: the bearer token that admin pages other than health require, "" for none.
        """
        self._default_region = default_region
        self._own = own
        self._token = token
        self._hosts = (doors or Doors()).hosts
        self._guarded = (doors or Doors()).guarded(self._answer)
        self._started = False
        self._services: dict[str, Service] = {}
        self._fallback: Service | None = None
        self._admin: dict[str, AdminHandler] = {}
        self.guard: Callable[[Service], Service] = lambda service: service
        """Wraps every service registered from now on."""

    def register(self, name: str, service: Service) -> None:
        """Route requests with a signing name to `service`, in place of moto."""
        self._services[name] = self.guard(service)

    def register_fallback(self, service: Service) -> None:
        """Route requests with any other signing name to `service`."""
        self._fallback = self.guard(service)

    def admin(self, name: str, handler: AdminHandler) -> None:
        """Answer /_local_aws/<name>[/...] with the handler's document."""
        self._admin[name] = handler

    def start(self) -> None:
        """Start the services that have a `start`, in order of registration."""
        for service in self._distinct():
            getattr(service, "start", lambda: None)()
        self._started = True

    def stop(self) -> None:
        """Stop the services in reverse order; one that fails does not prevent the others."""
        for service in reversed(self._distinct()):
            try:
                getattr(service, "stop", lambda: None)()
            except Exception:
                logger.exception("stopping %r failed", service)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, after the checks of the gateway."""
        return self._guarded(environ, start_response)

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if not self._started and self._own not in environ.get("HTTP_USER_AGENT", ""):
            # What is not loaded yet must be neither read nor written, and a new job not be taken for an old one.
            drain(environ["wsgi.input"])
            # With an empty body every SDK takes this for a reason to try again, whatever its protocol.
            return respond(start_response, 503, b"", "text/plain", {"Retry-After": "1"})
        if environ.get("PATH_INFO", "").startswith(ADMIN_PREFIX):
            return self._answer_admin(environ, start_response)
        try:
            scope = scope_of(environ, self._default_region)
        except AwsError as ambiguous:
            drain(environ["wsgi.input"])
            return respond_error(start_response, ambiguous, "rest-xml")
        environ["local_aws.hosts"] = self._hosts
        environ["local_aws.service"] = scope.service
        environ["local_aws.region"] = scope.region
        environ["local_aws.access_key"] = scope.access_key
        service = self._services.get(scope.service, self._fallback)
        if service is None:
            error = AwsError("UnsupportedOperation", f"{scope.service} is not supported by local_aws.", 501)
            return respond_error(start_response, error)
        return service(environ, start_response)

    def _answer_admin(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        name, _, rest = environ["PATH_INFO"][len(ADMIN_PREFIX) :].partition("/")
        if self._token and name not in _OPEN_PAGES and not self._is_token(environ):
            return respond_json(
                start_response, {"message": "this page requires the token of the state folder"}, 403
            )
        handler = self._admin.get(name)
        if handler is None:
            known = ", ".join(sorted(self._admin))
            return respond_json(start_response, {"message": f"no such page; there are: {known}"}, 404)
        query = {key: values[-1] for key, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        try:
            return respond_json(start_response, handler(environ["REQUEST_METHOD"], rest, query))
        except AwsError as error:
            return respond_json(start_response, {"code": error.code, "message": error.message}, error.status)

    def _is_token(self, environ: Environ) -> bool:
        stated = str(environ.get("HTTP_AUTHORIZATION", "")).removeprefix("Bearer ")
        return hmac.compare_digest(stated.encode("utf-8", "replace"), self._token.encode())

    def _distinct(self) -> list[Service]:
        distinct: list[Service] = []
        # The fallback first: others may call its services while they start.
        for service in (*([self._fallback] if self._fallback else []), *self._services.values()):
            if not any(service is known for known in distinct):
                distinct.append(service)
        return distinct
