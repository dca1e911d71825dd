"""The options of `python -m local_aws start`: one frozen record, validated once."""

from __future__ import annotations

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
    """Why local_aws cannot start, and what to do about it, in one line."""


@dataclass(frozen=True)
class Settings:
    """Settings of one local_aws.

    state: folder of everything that must survive a restart. images: `images.toml` (docs/contracts.md). port:
    0 picks a free one. cores: how many cores jobs may use together. quotas: instance type -> most instances
    at once, over which Create calls answer ResourceLimitExceeded; types not named have no limit but `cores`.
    enforce_iam: requests need the permissions that they need on AWS, else any credentials may do anything.
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

    def __post_init__(self) -> None:
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
