"""The options of `python -m local_aws start`: one frozen record, validated once."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ACCOUNT_ID = "123456789012"
DEFAULT_PORT = 4566
DEFAULT_HOST = "127.0.0.1"
EVERY_ADDRESS = ("0.0.0.0", "::")
DEFAULT_REGION = "us-east-1"

_REGION = re.compile(r"^[a-z]{2}(-[a-z]+)+-\d$")


class StartupError(Exception):
    """local_aws cannot start; the message says why and names the fix, in one line."""


@dataclass(frozen=True)
class Settings:
    """Settings of one local_aws.

    state: folder of everything that must survive a restart. images: `images.toml` (docs/contracts.md). port:
    0 picks a free one. cores: how many cores jobs may use together. quotas: instance type -> most instances
    at once, over which Create calls answer ResourceLimitExceeded; types not named have no limit but `cores`.
    enforce_iam: requests need the permissions that they need on AWS, else any credentials may do anything.
    require_auth: requests need a valid signature; None requires it unless `host` is loopback.
    hosts: further host names under which clients address local_aws. origins: web origins that get CORS headers.
    """

    state: Path
    images: Path
    port: int = DEFAULT_PORT
    region: str = DEFAULT_REGION
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    quotas: Mapping[str, int] = field(default_factory=dict)
    log_level: str = "INFO"
    host: str = DEFAULT_HOST
    enforce_iam: bool = False
    require_auth: bool | None = None
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach local_aws."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def verifies(self) -> bool:
        """True if requests need a valid signature."""
        if self.require_auth is None:
            return self.enforce_iam or not self.is_loopback
        return self.require_auth

    def __post_init__(self) -> None:
        if self.require_auth is False and (self.enforce_iam or not self.is_loopback):
            why = "--iam enforce" if self.enforce_iam else f"--host {self.host}"
            raise StartupError(
                f"--auth off does not go with {why}, which needs verified signatures: leave it out"
            )
        for origin in self.origins:
            if not re.fullmatch(r"https?://[^/\s]+", origin):
                raise StartupError(
                    f"--allow-origin {origin} is not an origin such as https://app.example:8443"
                )
        if not 0 <= self.port <= 65535:
            raise StartupError(f"--port {self.port} is not a port: choose one of 0 (any free port) to 65535")
        if self.cores < 1:
            raise StartupError(f"--cores {self.cores} leaves nothing to run jobs on: give at least 1")
        if not _REGION.match(self.region):
            raise StartupError(f"--region {self.region} is not a region name such as {DEFAULT_REGION}")
        for instance_type, limit in self.quotas.items():
            if limit < 0:
                raise StartupError(f"--quota {instance_type}={limit}: a quota is 0 or more instances")


def parse_quota(text: str) -> tuple[str, int]:
    """`ml.m5.xlarge=2` -> ("ml.m5.xlarge", 2)."""
    instance_type, _, count = text.partition("=")
    if not instance_type or not count.isdigit():
        raise StartupError(f"--quota {text}: write it as <instance type>=<count>, for example ml.m5.xlarge=2")
    return instance_type, int(count)
