"""The machine's cores, shared by jobs first come, first served; and quotas per instance type, as AWS has
them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping

from local_aws.errors import AwsError

_SIZES = {"medium": 2, "large": 2, "xlarge": 4}


def instance_cores(instance_type: str) -> int:
    """vCPUs of an instance type by AWS's naming (`ml.m5.xlarge` has 4, `ml.g4dn.12xlarge` 48).

    A few families deviate (t2.medium, trn1); the number only bounds a job's share of this machine.
    """
    size = instance_type.rpartition(".")[2]
    if size.endswith("xlarge") and size != "xlarge":
        factor = size.removesuffix("xlarge")
        return 4 * int(factor) if factor.isdigit() else 4
    return _SIZES.get(size, 4)


class Capacity:
    """Cores that jobs hold while they run. Idle endpoints and instances hold none.

    A job that needs more than the machine has gets the whole machine: its instances then share cores.
    """

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self._free = cores
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def free(self) -> int:
        """Cores that no job holds."""
        with self._changed:
            return self._free

    def share(self, instance_type: str, instances: int = 1, parallel: int = 1) -> int:
        """Cores for each instance of a job whose definition runs `parallel` times at once (a tuning job's
        trials).
        """
        fair = max(1, self.cores // max(1, instances * parallel))
        return min(instance_cores(instance_type), fair)

    def acquire(
        self, cores: int, cancelled: Callable[[], bool], timeout: float | None = None, poll: float = 0.2
    ) -> Lease | None:
        """Wait, in order of arrival, for `cores` (at most all of them). None when cancelled or timed out
        first.
        """
        wanted = min(cores, self.cores)
        ticket = object()
        remaining = timeout
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._free < wanted:
                    if cancelled() or (remaining is not None and remaining <= 0):
                        return None
                    self._changed.wait(poll if remaining is None else min(poll, remaining))
                    if remaining is not None:
                        remaining -= poll
                self._free -= wanted
                return Lease(self, wanted)
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def give_back(self, cores: int) -> None:
        """Return cores; called by Lease."""
        with self._changed:
            self._free += cores
            self._changed.notify_all()


class Lease:
    """Cores held by one job; give them back exactly once, or use it as a context manager."""

    def __init__(self, capacity: Capacity, cores: int) -> None:
        self._capacity = capacity
        self.cores = cores

    def release(self) -> None:
        """Give the cores back; a second call does nothing."""
        cores, self.cores = self.cores, 0
        if cores:
            self._capacity.give_back(cores)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def check_quota(
    quotas: Mapping[str, int], instance_type: str, in_use: int, wanted: int, purpose: str
) -> None:
    """Raise ResourceLimitExceeded, in AWS's words, when `wanted` more instances would exceed the quota.

    purpose: "training job", "processing job", "transform job" or "endpoint".
    """
    limit = quotas.get(instance_type)
    if limit is None or in_use + wanted <= limit:
        return
    raise AwsError(
        "ResourceLimitExceeded",
        f"The account-level service limit '{instance_type} for {purpose} usage' is {limit} Instances, with current "
        f"utilization of {in_use} Instances and a request delta of {wanted} Instances. Please use AWS Service Quotas "
        "to request an increase for this quota. If AWS Service Quotas is not available, contact AWS support to request "
        "an increase for this quota.",
    )
