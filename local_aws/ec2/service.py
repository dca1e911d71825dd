"""EC2: moto's app behind a filter that runs its instances."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

from moto.ec2.models import ec2_backends

from local_aws.context import Context
from local_aws.ec2 import launch_request
from local_aws.ec2.instances import Instances
from local_aws.ec2.metadata import MetadataService
from local_aws.errors import AwsError
from local_aws.gateway.bodies import buffered
from local_aws.gateway.responses import Environ, StartResponse, WsgiApp, respond, respond_error
from local_aws.settings import ACCOUNT_ID
from local_aws.state.resources import AlreadyExists, Missing, Resource

logger = logging.getLogger(__name__)

TOKEN_KIND = "ec2-client-token"
NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
_RESERVATION = re.compile(rb"<reservationSet>\s*<item>(.*)</item>\s*</reservationSet>", re.DOTALL)
_INSTANCE_ID = re.compile(rb"<instanceId>(i-[0-9a-f]+)</instanceId>")

Parameters = dict[str, str]


class Ec2:
    """The service; `instances` and `metadata` are its parts."""

    def __init__(
        self, context: Context, moto: WsgiApp, may_assume: Callable[[str, str], bool] | None = None
    ) -> None:
        self._context = context
        self._moto = moto
        self.metadata = MetadataService(context, may_assume)
        self.instances = Instances(context, self.metadata)
        self.metadata.region_of = self._region_of
        self._tokens = threading.Lock()
        self._after: dict[str, Callable[[str, str], None]] = {
            "TerminateInstances": self.instances.terminated,
            "StopInstances": self.instances.stopped,
            "StartInstances": self.instances.started,
        }

    def start(self) -> None:
        """Restore instances and answer metadata requests."""
        self.metadata.start()
        self.instances.start()

    def stop(self) -> None:
        """Kill all instances."""
        self.instances.stop()
        self.metadata.stop()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Start and end instances as processes; hand every other operation on to moto."""
        try:
            body = buffered(environ)
        except AwsError as error:
            return respond_error(start_response, error, "ec2")
        params = dict(parse_qsl(body.decode("utf-8", "replace") or environ.get("QUERY_STRING", "")))
        action = params.get("Action", "")
        region = environ.get("local_aws.region") or self._context.settings.region
        try:
            if action == "RunInstances":
                complete = launch_request.checked(params, region)
                if complete != params:
                    form = urlencode(complete).encode()
                    environ |= {"wsgi.input": io.BytesIO(form), "CONTENT_LENGTH": str(len(form))}
                return self._run(environ, start_response, params, region)
            if action == "GetConsoleOutput":
                return self._console(start_response, params)
            if action in self._after or action == "RebootInstances":
                return self._change(environ, start_response, params, region, action)
        except AwsError as error:
            return respond_error(start_response, error, "ec2")
        return self._moto(environ, start_response)

    def _run(
        self, environ: Environ, start_response: StartResponse, params: Parameters, region: str
    ) -> Iterable[bytes]:
        token = params.get("ClientToken", "")
        if not token or params.get("DryRun") == "true":
            return self._launch(environ, start_response, region)
        with self._tokens:
            known = self._with_token(region, token)
            if known:
                self._check_same(region, token, params)
                return self._again(environ, start_response, known)
            self._remember(region, token, params)
            return self._launch(environ, start_response, region)

    def _launch(self, environ: Environ, start_response: StartResponse, region: str) -> Iterable[bytes]:
        status, headers, body = _call(self._moto, environ)
        if status.startswith("200"):
            for match in dict.fromkeys(_INSTANCE_ID.findall(body)):
                self.instances.launch(region, match.decode())
        start_response(status, headers)
        return [body]

    def _again(self, environ: Environ, start_response: StartResponse, ids: list[str]) -> Iterable[bytes]:
        """Return the answer to a repeated RunInstances: the same reservation as it is now."""
        query = {"Action": "DescribeInstances", "Version": "2016-11-15"}
        query |= {f"InstanceId.{number}": name for number, name in enumerate(ids, start=1)}
        body = urlencode(query).encode()
        described = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        _, _, answer = _call(self._moto, described)
        match = _RESERVATION.search(answer)
        if match is None:
            raise AwsError("InternalError", "the reservation of a client token cannot be described", 500)
        text = (
            f'<RunInstancesResponse xmlns="{NAMESPACE}"><requestId>{uuid.uuid4()}</requestId>'.encode()
            + match.group(1)
            + b"</RunInstancesResponse>"
        )
        return respond(start_response, 200, text, "text/xml;charset=UTF-8")

    def _with_token(self, region: str, token: str) -> list[str]:
        backend = ec2_backends[ACCOUNT_ID][region]
        return [i.id for i in backend.all_instances() if getattr(i, "client_token", None) == token]

    def _remember(self, region: str, token: str, params: Parameters) -> None:
        arn = self._context.arn(region, f"client-token/{token}", "ec2")
        resource = Resource(TOKEN_KIND, region, token, arn, {"digest": _digest(params)})
        try:
            self._context.store.create(resource)
        except AlreadyExists:
            self._context.store.update(
                TOKEN_KIND, region, token, lambda document: document.update(digest=_digest(params))
            )

    def _check_same(self, region: str, token: str, params: Parameters) -> None:
        try:
            known = self._context.store.get(TOKEN_KIND, region, token).document["digest"]
        except Missing:
            return
        if known != _digest(params):
            raise AwsError(
                "IdempotentParameterMismatch",
                f"The client token {token} was used before with other parameters: arguments on this idempotent request "
                "are inconsistent with arguments used in previous request(s).",
            )

    def _change(
        self, environ: Environ, start_response: StartResponse, params: Parameters, region: str, action: str
    ) -> Iterable[bytes]:
        names = [value for name, value in params.items() if name.startswith("InstanceId.")]
        launch_request.check_state(action, names, region)
        status, headers, body = _call(self._moto, environ)
        if status.startswith("200"):
            for value in names:
                if action == "RebootInstances":
                    self.instances.stopped(region, value)
                    self.instances.started(region, value)
                else:
                    self._after[action](region, value)
        start_response(status, headers)
        return [body]

    def _console(self, start_response: StartResponse, params: Parameters) -> Iterable[bytes]:
        name = params.get("InstanceId", "")
        instance = self.instances.get(name)
        if instance is None:
            raise AwsError("InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist")
        output = base64.b64encode(instance.console_output()).decode()
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        text = (
            f'<GetConsoleOutputResponse xmlns="{NAMESPACE}"><requestId>{uuid.uuid4()}</requestId>'
            f"<instanceId>{escape(name)}</instanceId><timestamp>{now}</timestamp><output>{output}</output>"
            "</GetConsoleOutputResponse>"
        )
        return respond(start_response, 200, text.encode(), "text/xml;charset=UTF-8")

    def _region_of(self, instance_id: str) -> str | None:
        instance = self.instances.get(instance_id)
        return None if instance is None else instance.region


def _digest(params: Parameters) -> str:
    """Digest a client's parameters, without the token and the form's own fields."""
    asked = {key: value for key, value in params.items() if key not in ("ClientToken", "Action", "Version")}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _call(app: WsgiApp, environ: Environ) -> tuple[str, list[Any], bytes]:
    """Return status, headers and body of `app`'s answer."""
    answered: dict[str, Any] = {}

    def start(status: str, headers: list[Any], _info: Any = None) -> None:
        answered.update(status=status, headers=headers)

    body = b"".join(app(environ, start))
    return answered["status"], answered["headers"], body
