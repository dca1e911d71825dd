"""The instances of a job and their environment on this machine: groups, threads, paths, rendezvous."""

from __future__ import annotations

import socket
from pathlib import Path

from local_aws.execution.images import Image
from local_aws.sagemaker.jobs import python_layer
from local_aws.sagemaker.jobs.python_layer import LAYER, PACKAGES
from local_aws.sagemaker.jobs.script_mode import HostPlace
from local_aws.state.resources import Document

SHIMS = "shims"
NO_MPI = """#!/bin/sh
echo "MPI is not installed on this machine: run the script with torchrun (distribution Torchrun)" >&2
exit 127
"""


def instance_groups(resources: Document) -> list[tuple[str, str, int]]:
    """Return (group, instance type, count) of a ResourceConfig; one type makes one `homogeneousCluster`.

    Of InstancePreferences, the first is selected: this machine has capacity for any.
    """
    groups = resources.get("InstanceGroups")
    if groups:
        return [(g["InstanceGroupName"], g["InstanceType"], g["InstanceCount"]) for g in groups]
    name = resources.get("SelectedInstanceType") or resources["InstanceType"]
    count = resources.get("SelectedInstanceCount") or resources.get("InstanceCount", 1)
    return [("homogeneousCluster", name, count)]


def install_programs(folder: Path, image: Image) -> None:
    """Write a python that can be installed into, and an mpirun that says that there is none.

    The PATH has the one first and the other last, so a real mpirun comes first.
    """
    python_layer.install(folder, image.interpreter)
    shims = folder / SHIMS
    shims.mkdir(exist_ok=True)
    for name in ("mpirun", "mpiexec", "orted"):
        (shims / name).write_text(NO_MPI)
        (shims / name).chmod(0o755)


def machine_environment(place: HostPlace, image: Image, port: int) -> dict[str, str]:
    """Build the variables that depend on this machine: threads per core share, rendezvous, temporary folders."""
    threads = str(place.cores)
    return {
        "PATH": f"{place.root}/{LAYER}/bin:{Path(image.interpreter).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:"
        f"/usr/bin:/sbin:/bin:{place.root}/{SHIMS}",
        "PYTHONPATH": f"{place.root}/code:{place.root}/{PACKAGES}",
        "HOME": f"{place.root}/tmp",
        "TMPDIR": f"{place.root}/tmp",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MASTER_ADDR": place.hosts[0],
        "MASTER_PORT": str(port),
        "SM_MASTER_ADDR": place.hosts[0],
        "SM_MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "TP_SOCKET_IFNAME": "lo",
    }


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
