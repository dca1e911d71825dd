"""SSM: Run Command and public image parameters are implemented here, the rest by moto."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from local_aws.context import Context
from local_aws.ec2 import commands, information
from local_aws.ec2.images import public_parameter
from local_aws.ec2.instances import Instances
from local_aws.ec2.run_command import ENDED, KIND, remove_leftovers
from local_aws.ec2.running import Running, operation
from local_aws.gateway.bodies import buffered
from local_aws.gateway.json_service import Document, JsonService
from local_aws.gateway.responses import Environ, StartResponse, WsgiApp, respond
from local_aws.state.resources import Resource

OPERATIONS = (commands, information)
"""The modules whose import registers operations."""
_JSON = "application/x-amz-json-1.1"


class Ssm(JsonService):
    """The service. `instances` are those of EC2."""

    def __init__(self, context: Context, moto: WsgiApp, instances: Instances) -> None:
        super().__init__(operation, context)
        self._context = context
        self._moto = moto
        context.part(Running).instances = instances

    def start(self) -> None:
        """Record the end of commands that were running when an earlier process ended."""
        remove_leftovers(self._context.settings.state / "instances")
        for resource in self._context.store.all(KIND):
            if resource.document["Status"] not in ENDED:
                self._end(resource)

    def stop(self) -> None:
        """Wait for the commands, which end with their instances."""
        self._context.part(Running).join()

    def _end(self, resource: Resource) -> None:
        end: Document = {
            "Status": "Failed",
            "StatusDetails": "Failed",
            "ResponseCode": -1,
            "Stderr": "local_aws ended while the command ran.",
            "Ended": time.time(),
        }
        self._context.store.update(
            KIND, resource.region, resource.name, lambda document: document.update(end)
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Run commands on instances, resolve public AMI parameters, and hand the rest on to moto."""
        name = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        if name in operation.handlers:
            return super().__call__(environ, start_response)
        if name == "GetParameter":
            found = public_parameter(environ.get("local_aws.region", ""), _name(buffered(environ)))
            if found is not None:
                return respond(start_response, 200, json.dumps({"Parameter": found}).encode(), _JSON)
        return self._moto(environ, start_response)


def _name(body: bytes) -> str:
    try:
        asked: Any = json.loads(body)
    except ValueError:
        return ""
    return str(asked.get("Name", "")) if isinstance(asked, dict) else ""
