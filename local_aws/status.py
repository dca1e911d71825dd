"""Collect what is running for `GET /_local_aws/status`, and format it for people."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from local_aws.context import Context

_JOBS = ("training-job", "processing-job", "transform-job", "hyper-parameter-tuning-job")
_ACTIVE = ("InProgress", "Stopping")


def gather(context: Context, instances: list[dict[str, Any]]) -> dict[str, Any]:
    """Return running jobs, counts of ended ones, endpoints, instances, cores and disk usage."""
    jobs: list[dict[str, Any]] = []
    ended: dict[str, dict[str, int]] = {}
    for kind in _JOBS:
        for resource in context.store.all(kind):
            if resource.status in _ACTIVE:
                jobs.append(
                    {
                        "kind": kind,
                        "name": resource.name,
                        "status": resource.document.get("SecondaryStatus", resource.status),
                        "seconds": round(time.time() - resource.created),
                    }
                )
            else:
                counts = ended.setdefault(kind, {})
                counts[resource.status] = counts.get(resource.status, 0) + 1
    usage = shutil.disk_usage(context.settings.state)
    return {
        "url": context.url,
        "pid": os.getpid(),
        "region": context.settings.region,
        "state": str(context.settings.state),
        "cores": {"all": context.capacity.cores, "free": context.capacity.free},
        "jobs": jobs,
        "ended": ended,
        "endpoints": [
            {"name": e.name, "status": e.status, "config": e.document.get("EndpointConfigName", "")}
            for e in context.store.all("endpoint")
        ],
        "instances": instances,
        "disk": {"state_bytes": folder_bytes(context.settings.state), "free_bytes": usage.free},
    }


def folder_bytes(folder: Path) -> int:
    """Return the size of all files under a folder; files that vanish meanwhile count as 0."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total


def render(status: dict[str, Any]) -> str:
    """Format a status document as text."""
    disk, cores = status["disk"], status["cores"]
    lines = [
        f"local_aws {status['url']}  pid {status['pid']}  region {status['region']}",
        f"state     {status['state']}  {_size(disk['state_bytes'])}, {_size(disk['free_bytes'])} free",
        f"cores     {cores['all']}, {cores['free']} free",
    ]
    for job in status["jobs"]:
        lines.append(f"{job['kind']:<27} {job['name']:<64} {job['status']} for {job['seconds']} s")
    if not status["jobs"]:
        lines.append("no running jobs")
    for kind, counts in status["ended"].items():
        lines.append(f"{kind:<27} " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    for endpoint in status["endpoints"]:
        lines.append(f"{'endpoint':<27} {endpoint['name']:<64} {endpoint['status']} ({endpoint['config']})")
    for instance in status["instances"]:
        label = f"{instance['id']} {instance['name']}".rstrip()
        pids = ", ".join(map(str, instance["pids"])) or "none"
        lines.append(
            f"{'instance':<27} {label:<64} {instance['state']} for {instance['seconds']} s, pids {pids}, "
            f"SSM {instance['ssm']}"
        )
    return "\n".join(lines)


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
