"""The state that every service of local_aws shares, and clients of local_aws itself."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config

from local_aws.execution.capacity import Capacity
from local_aws.execution.images import Images
from local_aws.settings import ACCOUNT_ID, Settings
from local_aws.state.logs import LogStore
from local_aws.state.resources import Store

Part = TypeVar("Part")
SESSION_SECONDS = 12 * 3600
"""Lifetime of a job's credentials; a role allows no more."""


@dataclass(frozen=True)
class Key:
    """An access key: its id, its secret, and a session's token or ""."""

    id: str
    secret: str
    token: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """As SDKs read it from the environment."""
        token = {"AWS_SESSION_TOKEN": self.token} if self.token else {}
        return {"AWS_ACCESS_KEY_ID": self.id, "AWS_SECRET_ACCESS_KEY": self.secret, **token}


NO_ROLE = f"arn:aws:iam::{ACCOUNT_ID}:role/local-aws-job"
"""For processes without a role: it has no policy, and the account's own key never reaches a job."""
ANY_KEY = Key("AKIALOCALAWSJOBS0000", "local-aws")
"""For our own calls and for jobs while any credentials are accepted."""


@dataclass
class Context:
    """Shared by all services of one running local_aws.

    url: `http://127.0.0.1:<port>`, where it listens. stopping: set when the process shall end; every loop and
    wait checks it. admits: (service, target, source), whether the policy of a queue or topic lets a service deliver
    to it; set by `--iam enforce`. mark: in the user agent of our own calls, which are answered while services still
    start.
    """

    settings: Settings
    url: str
    store: Store
    images: Images
    capacity: Capacity
    logs: LogStore
    root_key: Key = ANY_KEY
    stopping: threading.Event = field(default_factory=threading.Event)
    admits: Callable[[str, str, str], bool] = lambda _service, _target, _source: True
    mark: str = field(default_factory=lambda: f"local_aws/{secrets.token_hex(16)}")
    _clients: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    _sessions: dict[str, tuple[float, Key]] = field(default_factory=dict)
    _clients_lock: threading.Lock = field(default_factory=threading.Lock)
    _parts: dict[type, Any] = field(default_factory=dict)
    _parts_lock: threading.Lock = field(default_factory=threading.Lock)

    def arn(self, region: str, resource: str, service: str = "sagemaker") -> str:
        """`training-job/a` -> `arn:aws:sagemaker:us-east-1:123456789012:training-job/a`."""
        return f"arn:aws:{service}:{region}:{ACCOUNT_ID}:{resource}"

    def part(self, kind: type[Part]) -> Part:
        """Return the one `kind` of this local_aws, such as its register of jobs; created at first use."""
        with self._parts_lock:
            if kind not in self._parts:
                self._parts[kind] = kind()
            found: Part = self._parts[kind]
            return found

    def key_of(self, role: str) -> Key:
        """Return the key for a process that runs with a role.

        The key is a session of that role. IAM decides what the session may do where it is enforced.

        Raises:
            botocore.exceptions.ClientError: the role cannot be assumed.
        """
        if not (self.settings.verifies and role):
            return self.root_key
        end, key = self._sessions.get(role, (0.0, self.root_key))
        if end < time.time() + SESSION_SECONDS / 2:
            issued = self.client("sts").assume_role(
                RoleArn=role, RoleSessionName="SageMaker", DurationSeconds=SESSION_SECONDS
            )["Credentials"]
            key = Key(issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"])
            self._sessions[role] = (time.time() + SESSION_SECONDS, key)
        return key

    def client(self, service: str, region: str | None = None, role: str = "") -> Any:
        """Return a cached, thread-safe boto3 client of this local_aws, as the account or as a role."""
        region = region or self.settings.region
        key = self.key_of(role)
        with self._clients_lock:
            client = self._clients.get((service, region, key.id))
            if client is None:
                session: Any = boto3.session.Session()
                client = session.client(
                    service,
                    region_name=region,
                    endpoint_url=self.url,
                    aws_access_key_id=key.id,
                    aws_secret_access_key=key.secret,
                    aws_session_token=key.token or None,
                    config=Config(
                        s3={"addressing_style": "path"},
                        max_pool_connections=32,
                        retries={"max_attempts": 2, "mode": "standard"},
                        user_agent_extra=self.mark,
                        # Bodies stay in this machine: their digests would only cost time.
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
                self._clients[(service, region, key.id)] = client
        return client

    @cached_property
    def jobs(self) -> Path:
        """Root of the job folders: `<jobs>/<region>/<kind>/<name>`."""
        return self._folder("jobs")

    @cached_property
    def records(self) -> Path:
        """Folder of the process groups' records (see `processes.end_orphans`)."""
        return self._folder("run")

    def job_environment(self, region: str, role: str) -> dict[str, str]:
        """Return the environment of a process started for a client.

        It reaches this AWS with its role and holds nothing of local_aws's own environment.
        """
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            **self.key_of(role or NO_ROLE).environment,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _folder(self, name: str) -> Path:
        path = self.settings.state / name
        path.mkdir(parents=True, exist_ok=True)
        return path
