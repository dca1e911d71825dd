"""What every service of local_aws shares: settings, the address, the store, capacity, images, logs, and
clients to itself.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local_aws.capacity import Capacity
from local_aws.images import Images
from local_aws.log_store import LogStore
from local_aws.settings import ACCOUNT_ID, Settings
from local_aws.store import Store

# Credentials for our own calls and for jobs; by default any are accepted.
ACCESS_KEY_ID = "AKIALOCALAWSJOBS0000"
SECRET_ACCESS_KEY = "local-aws"


@dataclass
class Context:
    """Shared by all services of one running local_aws.

    url: `http://127.0.0.1:<port>`, where it listens. stopping: set when the process is to end; every loop and
    wait heeds it.
    """

    settings: Settings
    url: str
    store: Store
    images: Images
    capacity: Capacity
    logs: LogStore
    stopping: threading.Event = field(default_factory=threading.Event)
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)
    _clients_lock: threading.Lock = field(default_factory=threading.Lock)

    def arn(self, region: str, resource: str, service: str = "sagemaker") -> str:
        """`training-job/a` -> `arn:aws:sagemaker:us-east-1:123456789012:training-job/a`."""
        return f"arn:aws:{service}:{region}:{ACCOUNT_ID}:{resource}"

    def client(self, service: str, region: str | None = None) -> Any:
        """A boto3 client of this very local_aws. Clients are thread-safe and kept."""
        region = region or self.settings.region
        with self._clients_lock:
            client = self._clients.get((service, region))
            if client is None:
                session: Any = boto3.session.Session()
                client = session.client(
                    service,
                    region_name=region,
                    endpoint_url=self.url,
                    aws_access_key_id=ACCESS_KEY_ID,
                    aws_secret_access_key=SECRET_ACCESS_KEY,
                    config=Config(
                        s3={"addressing_style": "path"},
                        max_pool_connections=32,
                        retries={"max_attempts": 2, "mode": "standard"},
                        # Bodies stay in this machine: their digests would only cost time.
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
                self._clients[(service, region)] = client
        return client

    @cached_property
    def jobs(self) -> Path:
        """Where jobs have their folders: `<jobs>/<region>/<kind>/<name>`."""
        return self._folder("jobs")

    @cached_property
    def records(self) -> Path:
        """Where process groups keep their records (see processes.end_orphans)."""
        return self._folder("run")

    def job_environment(self, region: str) -> dict[str, str]:
        """What any process started for a client needs to reach this AWS, and nothing of our own
        environment.
        """
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _folder(self, name: str) -> Path:
        path = self.settings.state / name
        path.mkdir(parents=True, exist_ok=True)
        return path
