"""The instance metadata service (IMDSv2), one server for all instances: `/<an instance's secret>/latest/...`.

All instances share loopback, so the address itself tells them apart: it holds a secret that only the programs of one
instance get, in AWS_EC2_METADATA_SERVICE_ENDPOINT. Credentials are those of the instance's role, from STS.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.context import Context
from local_aws.ec2.instance import moto_instance, role_of, user_data_of
from local_aws.gateway.responses import iso_time
from local_aws.settings import ACCOUNT_ID

logger = logging.getLogger(__name__)

LONGEST_TOKEN_SECONDS = 21_600
CREDENTIAL_SECONDS = 3600
EC2 = "ec2.amazonaws.com"


class MetadataService:
    """The server.

    `region_of` returns the region of a running instance, or None. `may_assume(role ARN, service)` evaluates a role's
    trust policy where IAM is enforced.
    """

    def __init__(self, context: Context, may_assume: Callable[[str, str], bool] | None = None) -> None:
        self._context = context
        self._may_assume = may_assume
        self._secrets: dict[str, str] = {}
        self.region_of: Callable[[str], str | None] = lambda _instance: None
        self._tokens: dict[tuple[str, str], float] = {}
        self._credentials: dict[str, tuple[float, dict[str, str]]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="instance metadata", daemon=True
        )

    def address(self, instance_id: str) -> str:
        """Return the address that only the programs of an instance are told."""
        with self._lock:
            known = next((secret for secret, name in self._secrets.items() if name == instance_id), "")
            if not known:
                known = secrets.token_urlsafe(24)
                self._secrets[known] = instance_id
        return f"{self._url}/{known}/"

    def forget(self, instance_id: str) -> None:
        """Stop answering for a terminated instance."""
        with self._lock:
            self._secrets = {secret: name for secret, name in self._secrets.items() if name != instance_id}
            self._credentials.pop(instance_id, None)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, headers: Any) -> tuple[int, str]:
        """Return status and text for one request."""
        if headers.get("Origin") or headers.get("X-Forwarded-For"):
            return 403, ""  # no program of an instance sends these; web pages and proxies do
        secret, _, rest = path.lstrip("/").partition("/")
        with self._lock:
            instance_id = self._secrets.get(secret, "")
        region = self.region_of(instance_id) if instance_id else None
        if region is None:
            return 404, ""
        if rest == "latest/api/token":
            return self._token(method, instance_id, headers.get("X-aws-ec2-metadata-token-ttl-seconds", ""))
        if method != "GET":
            return 405, ""
        if not self._is_valid(instance_id, headers.get("X-aws-ec2-metadata-token", "")):
            return 401, ""
        found = self._look_up(region, instance_id, rest.rstrip("/") if rest != "latest/" else rest)
        return (404, "") if found is None else (200, found)

    def _token(self, method: str, instance_id: str, ttl: str) -> tuple[int, str]:
        if method != "PUT":
            return 405, ""
        if not ttl.isdigit() or not 1 <= int(ttl) <= LONGEST_TOKEN_SECONDS:
            return 400, ""
        token = secrets.token_urlsafe(40)
        now = time.time()
        with self._lock:
            self._tokens = {key: end for key, end in self._tokens.items() if end > now}
            self._tokens[(instance_id, token)] = now + int(ttl)
        return 200, token

    def _is_valid(self, instance_id: str, token: str) -> bool:
        with self._lock:
            return self._tokens.get((instance_id, token), 0.0) > time.time()

    def _look_up(self, region: str, instance_id: str, path: str) -> str | None:
        instance = moto_instance(region, instance_id)
        role = role_of(region, instance_id)
        name = role.rpartition("/")[2] if role else None
        zone = str(instance.availability_zone or f"{region}a")
        meta: dict[str, str | None] = {
            "instance-id": instance_id,
            "ami-id": instance.image_id,
            "instance-type": instance.instance_type,
            "local-ipv4": str(instance.private_ip),
            "local-hostname": str(instance.private_dns_name),
            "hostname": str(instance.private_dns_name),
            "instance-life-cycle": instance.lifecycle or "on-demand",
            "placement/region": region,
            "placement/availability-zone": zone,
            "services/domain": "amazonaws.com",
            "services/partition": "aws",
            "iam/security-credentials": name,
        }
        if name is not None and role is not None:
            if path == f"latest/meta-data/iam/security-credentials/{name}":
                return self._role_credentials(region, instance_id, role)
            profile = f"arn:aws:iam::{ACCOUNT_ID}:instance-profile/{name}"
            meta["iam/info"] = json.dumps({"Code": "Success", "InstanceProfileArn": profile})
        if path == "latest/user-data":
            data = user_data_of(region, instance_id)
            return data.decode("utf-8", "replace") if data else None
        if path == "latest/dynamic/instance-identity/document":
            return json.dumps(
                {
                    "accountId": ACCOUNT_ID,
                    "instanceId": instance_id,
                    "imageId": instance.image_id,
                    "instanceType": instance.instance_type,
                    "privateIp": str(instance.private_ip),
                    "region": region,
                    "availabilityZone": zone,
                    "architecture": instance.architecture,
                }
            )
        if path == "latest/meta-data":
            return "\n".join(
                sorted({key.partition("/")[0] for key, value in meta.items() if value is not None})
            )
        return (
            meta.get(path.removeprefix("latest/meta-data/")) if path.startswith("latest/meta-data/") else None
        )

    def _role_credentials(self, region: str, instance_id: str, role: str) -> str | None:
        with self._lock:
            end, document = self._credentials.get(instance_id, (0.0, {}))
        if self._may_assume is not None and not self._may_assume(role, EC2):
            logger.warning("no credentials for %s: %s does not trust %s", instance_id, role, EC2)
            return None
        if end < time.time() + CREDENTIAL_SECONDS / 4:
            try:
                issued = self._context.client("sts", region).assume_role(
                    RoleArn=role, RoleSessionName=instance_id, DurationSeconds=CREDENTIAL_SECONDS
                )["Credentials"]
            except (ClientError, BotoCoreError) as error:
                logger.warning("no credentials for %s: %s", instance_id, error)
                return None
            end = time.time() + CREDENTIAL_SECONDS
            document = {
                "Code": "Success",
                "LastUpdated": iso_time(time.time(), "seconds"),
                "Type": "AWS-HMAC",
                "AccessKeyId": issued["AccessKeyId"],
                "SecretAccessKey": issued["SecretAccessKey"],
                "Token": issued["SessionToken"],
                "Expiration": iso_time(end, "seconds"),
            }
            with self._lock:
                self._credentials[instance_id] = (end, document)
        return json.dumps(document)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_GET(self) -> None:
                self._respond("GET")

            def do_PUT(self) -> None:
                self._respond("PUT")

            def _respond(self, method: str) -> None:
                try:
                    status, text = service.answer(method, self.path, self.headers)
                except Exception:
                    logger.exception("instance metadata: %s failed", self.path)
                    status, text = 500, ""
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                if method == "PUT" and status == 200:
                    self.send_header(
                        "X-aws-ec2-metadata-token-ttl-seconds",
                        self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", ""),
                    )
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        return Handler
