"""The group of processes that train one model: torchrun's, SageMaker's, or just this one."""

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
from torch import Tensor, distributed, nn

# The port that SageMaker's own torchrun launcher uses between instances.
DEFAULT_PORT: Final = 7777
# Long enough for the slowest instance to download its channels, short enough not to pay a day for a dead one.
_TIMEOUT: Final = timedelta(minutes=30)
_CPU: Final = torch.device("cpu")


class DistributedError(RuntimeError):
    """An environment that does not describe exactly one group of processes."""


@dataclass(frozen=True)
class Membership:
    """This process's rank in the group, and the address of rank 0.

    Args:
        rank: 0 .. size - 1. Rank 0 alone writes files and prints metrics.
        size: Number of processes.
        local_rank: The rank on this machine; selects the accelerator.
        address: The host of rank 0.
        port: The port on which rank 0 listens.
        local_size: Number of processes on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    local_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise DistributedError(f"rank {self.rank} is not in a group of {self.size}")


def membership(environment: Mapping[str, str]) -> Membership:
    """Read this process's membership from the environment.

    torchrun's RANK and WORLD_SIZE win; else SM_HOSTS (a JSON list) and SM_CURRENT_HOST, one process per
    host; else one process alone. MASTER_ADDR defaults to the first host, MASTER_PORT to 7777.

    Raises:
        DistributedError: Variables that contradict each other.
    """
    port = int(environment.get("MASTER_PORT") or DEFAULT_PORT)
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return Membership(
            rank=int(environment["RANK"]),
            size=int(environment["WORLD_SIZE"]),
            local_rank=int(environment.get("LOCAL_RANK", "0")),
            address=environment.get("MASTER_ADDR", "127.0.0.1"),
            port=port,
            local_size=int(environment.get("LOCAL_WORLD_SIZE", "1")),
        )
    hosts = json.loads(environment.get("SM_HOSTS") or "[]")
    if len(hosts) < 2:
        return Membership(port=port)
    if len(set(hosts)) != len(hosts):
        raise DistributedError(f"SM_HOSTS names a host twice: {hosts}")
    current = environment.get("SM_CURRENT_HOST", "")
    if current not in hosts:
        raise DistributedError(f"SM_CURRENT_HOST={current!r} is not in SM_HOSTS={hosts}")
    return Membership(
        rank=hosts.index(current),
        size=len(hosts),
        address=environment.get("MASTER_ADDR") or hosts[0],
        port=port,
    )


@dataclass(frozen=True)
class World:
    """Collective operations of the group, from one process's point of view.

    Every method that communicates is collective: all ranks call it, in the same order.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU

    @property
    def is_main(self) -> bool:
        """True on the rank that writes files and prints metrics."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This rank's part of a global batch of `count`: contiguous, disjoint, together the whole batch.

        Starts are even so that mixup's neighboring pairs (2k, 2k + 1) are never split over two ranks.
        """
        pairs = (count + 1) // 2
        start = 2 * (pairs * self.rank // self.size)
        stop = 2 * (pairs * (self.rank + 1) // self.size)
        return slice(start, min(stop, count))

    def sum(self, values: Tensor) -> Tensor:
        """Return the element-wise sum of `values` over all ranks, on every rank."""
        if self.size == 1:
            return values
        total = values.to(self.device, copy=True)
        distributed.all_reduce(total)
        return total.to(values.device)

    def gather(self, item: Any) -> list[Any]:
        """Return every rank's `item`, in the order of ranks, on every rank."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        distributed.all_gather_object(items, item)
        return items

    def from_main(self, item: Any) -> Any:
        """Rank 0's `item`, on every rank."""
        if self.size == 1:
            return item
        items = [item]
        distributed.broadcast_object_list(items, src=0)
        return items[0]

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with gradients averaged over all ranks, starting from rank 0's weights; unchanged if alone."""
        if self.size == 1:
            return model
        devices = [self.device.index] if self.device.type == "cuda" else None
        # Frozen batch norm never changes, so there are no buffers to broadcast at every step.
        return nn.parallel.DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def pick_device(local_rank: int = 0) -> torch.device:
    """Return the accelerator of this process where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device("cpu")


@contextmanager
def join(environment: Mapping[str, str] | None = None) -> Iterator[World]:
    """Join the group that the environment describes and leave it at the end: NCCL with a GPU per process, else gloo."""
    environment = os.environ if environment is None else environment
    place = membership(environment)
    device = pick_device(place.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if place.size == 1:
        yield World(device=device)
        return
    _choose_interface(environment, place.address)
    # NCCL refuses processes that share a GPU ("Duplicate GPU detected"); gloo lets them, slowly.
    own_gpu = device.type == "cuda" and place.local_size <= torch.cuda.device_count()
    distributed.init_process_group(
        backend="nccl" if own_gpu else "gloo",
        init_method=f"tcp://{place.address}:{place.port}",
        rank=place.rank,
        world_size=place.size,
        timeout=_TIMEOUT,
        device_id=device if own_gpu else None,
    )
    try:
        yield World(rank=place.rank, size=place.size, device=device)
    finally:
        distributed.destroy_process_group()


def _choose_interface(environment: Mapping[str, str], address: str) -> None:
    """Choose the network interface of gloo and NCCL.

    By default gloo resolves the host's name, which often fails, and NCCL takes the first interface that is up.
    """
    interface = environment.get("SM_NETWORK_INTERFACE_NAME")
    if not interface and socket.gethostbyname(address).startswith("127."):
        interface = "lo0" if sys.platform == "darwin" else "lo"
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if interface and variable not in environment:
            os.environ[variable] = interface
