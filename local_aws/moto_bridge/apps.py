"""moto's apps for the services that are not ours, called directly rather than through moto's dispatcher.

The dispatcher lists moto's folder twice per request, a third of its time, and offers moto's admin API; here a
request's SigV4 scope leads to the app of its service, kept after first use. What moto does not do it says by
raising; the client gets a clear error in its own protocol.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

import botocore.session
from moto import backend_index
from moto.core.exceptions import AWSError, ServiceException
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.exceptions import HTTPException

from local_aws.errors import AwsError, unsupported
from local_aws.gateway.bodies import buffered
from local_aws.gateway.responses import Environ, StartResponse, WsgiApp, respond_error
from local_aws.moto_bridge.state import MotoState

logger = logging.getLogger(__name__)

_NEVER = frozenset({"moto_api", "moto_api._internal", "instance_metadata", "sagemaker", "sagemakerruntime"})
"""moto apps that must not be reached: its admin API, and what local_aws answers itself."""


_READS = re.compile(
    r"(Describe|List|Get|Head|BatchGet|Query|Scan|Search|Lookup|Simulate|Receive|Check|Test|Validate|Decode|Filter)"
)
_DEFERRED = frozenset({"PutMetricData"})
"""Operations so frequent that their effect is saved a little later, not before the answer."""


_INVENTED = frozenset({"GetSessionToken", "GetFederationToken"})
"""Operations to which moto answers with one constant key, which signs nothing."""


@dataclass(frozen=True)
class MotoApp:
    """moto's app for one service; `service` is moto's own name for it."""

    service: str
    wsgi: WsgiApp


class MotoApps:
    """A WSGI app that routes each request to moto's app for its service and saves its changes."""

    def __init__(self, state: MotoState, prepare: Mapping[str, Callable[[], None]]) -> None:
        """`prepare` holds, by moto's name of a service, what is done before its app is used."""
        self._state, self._prepare = state, prepare
        # Only its pure function from a request to a host name is used.
        self._names = DomainDispatcherApplication(create_backend_app)
        self._apps: dict[str, MotoApp | None] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer by moto's app for the request's service, in that service's protocol."""
        service = environ.get("local_aws.service", "")
        operation = ""
        try:
            # Read now: moto consumes the body that may name it.
            operation = _operation(environ)
            host = self._names.infer_service_region_host(_one_scope(environ), environ.get("PATH_INFO", ""))
            app = self._app(host) if host else None
            if app is None:
                raise AwsError(
                    "UnsupportedOperation", f"{service or host} is not supported by local_aws.", 501
                )
            return self._answer(app, operation, environ, start_response)
        except AwsError as error:
            return respond_error(start_response, error, protocol(service))
        except NotImplementedError as error:
            named = operation or _named_operation(str(error))
            return respond_error(start_response, unsupported(service, named), protocol(service))
        except (ServiceException, AWSError, HTTPException):
            raise
        except Exception:
            logger.exception("moto failed to answer %s %s", service, operation)
            failure = AwsError(
                "InternalFailure", f"local_aws (moto) failed to answer {service}; its log says why.", 500
            )
            return respond_error(start_response, failure, protocol(service))

    def start(self) -> None:
        """Restore moto's state.

        Raises:
            StartupError: the state was written by another version of moto.
        """
        self._state.load()

    def stop(self) -> None:
        """Save pending changes."""
        self._state.stop()

    def _answer(
        self, app: MotoApp, operation: str, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        if operation in _INVENTED:
            raise unsupported(app.service, operation)
        if not _changes(operation, environ["REQUEST_METHOD"]):
            return app.wsgi(environ, start_response)
        if operation in _DEFERRED:
            answer = app.wsgi(environ, start_response)
            self._state.later(app.service)
            return answer
        with self._state.changing(app.service):
            return app.wsgi(environ, start_response)

    def _app(self, host: str) -> MotoApp | None:
        with self._lock:
            if host not in self._apps:
                self._apps[host] = _create(host, self._prepare)
            return self._apps[host]


def _one_scope(environ: Environ) -> Environ:
    """Return an environ from which moto infers the very service that the router chose and the gate judged."""
    service, region = environ.get("local_aws.service", ""), environ.get("local_aws.region", "")
    if not environ.get("local_aws.access_key") or not service:
        return environ
    scope = f"AWS4-HMAC-SHA256 Credential=key/20000101/{region}/{service}/aws4_request, SignedHeaders=host"
    return {**environ, "HTTP_AUTHORIZATION": scope}


def _create(host: str, prepare: Mapping[str, Callable[[], None]]) -> MotoApp | None:
    backend = next(
        (name for name, pattern in backend_index.backend_url_patterns if pattern.match(f"http://{host}")),
        host,
    )
    if backend in _NEVER:
        return None
    if backend in prepare:
        prepare[backend]()
    try:
        app = create_backend_app(backend)
    except (ImportError, KeyError, AttributeError):
        return None
    # Flask's debug mode would answer an exception with an HTML page; propagated, it becomes an AWS error.
    app.debug = False
    app.config["PROPAGATE_EXCEPTIONS"] = True
    return MotoApp(backend, app)


@functools.cache
def protocol(service: str) -> str:
    """Return the wire protocol of a service by its signing name; "json" when unknown."""
    session = botocore.session.get_session()
    names = {"monitoring": "cloudwatch", "elasticmapreduce": "emr", "email": "ses"}
    name = names.get(service, service)
    if name not in session.get_available_services():
        return "json"
    model = session.get_service_model(name)
    return str(getattr(model, "resolved_protocol", model.metadata["protocol"]))


def _operation(environ: Environ) -> str:
    """Return the operation named by X-Amz-Target or Action; "" for REST services."""
    target = str(environ.get("HTTP_X_AMZ_TARGET", "")).rpartition(".")[2]
    if target:
        return target
    action = parse_qs(str(environ.get("QUERY_STRING", ""))).get("Action")
    if action:
        return action[-1]
    form = environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded")
    length = environ.get("CONTENT_LENGTH")
    if not form or not length:
        return ""
    return parse_qs(buffered(environ).decode("utf-8", "replace")).get("Action", [""])[-1]


def _changes(operation: str, method: str) -> bool:
    """Return True if a request may change state, judged by operation name, else (REST) by method."""
    return not _READS.match(operation) if operation else method not in ("GET", "HEAD", "OPTIONS")


def _named_operation(message: str) -> str:
    """Turn moto's `The describe_id_format action has not been implemented` into `DescribeIdFormat`."""
    words = message.split()
    snake = next((word for word in words if "_" in word), message)
    return "".join(part.title() for part in snake.split("_"))
