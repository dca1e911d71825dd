"""Cores of this machine, leased to jobs in order of arrival, and quotas per instance type."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping

from local_aws.errors import AwsError

_SIZES = {"medium": 2, "large": 2, "xlarge": 4}


def instance_cores(instance_type: str) -> int:
    """Return the vCPUs of an instance type by AWS's naming: `ml.m5.xlarge` has 4, `ml.g4dn.12xlarge` 48.

    A few families deviate (t2.medium, trn1); the number only limits a job's share of this machine.
    """
    size = instance_type.rpartition(".")[2]
    if size.endswith("xlarge") and size != "xlarge":
        factor = size.removesuffix("xlarge")
        return 4 * int(factor) if factor.isdigit() else 4
    return _SIZES.get(size, 4)


class Capacity:
    """The cores that running jobs hold; idle endpoints and instances hold none.

    A job that needs more cores than the machine has gets all of them, and its instances share them.
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
        """Return the cores for each instance of a job.

        Args:
            instance_type: Bounds the share by the type's vCPUs.
            instances: Instances of the job.
            parallel: Jobs of the same definition that run at once, such as the trials of a tuning job.
        """
        fair = max(1, self.cores // max(1, instances * parallel))
        return min(instance_cores(instance_type), fair)

    def acquire(
        self, cores: int, cancelled: Callable[[], bool], timeout: float | None = None, poll: float = 0.2
    ) -> Lease | None:
        """Wait for cores in order of arrival.

        Args:
            cores: Cores wanted; at most all cores of the machine are leased.
            cancelled: Ends the wait when it returns true.
            timeout: Seconds to wait at most; None waits without limit.
            poll: Seconds between two looks at `cancelled`.

        Returns:
            The lease, or None when the wait was cancelled or timed out.
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
        """Return cores. Called by Lease."""
        with self._changed:
            self._free += cores
            self._changed.notify_all()


class Lease:
    """Cores that one job holds. Release them once, or use it as a context manager."""

    def __init__(self, capacity: Capacity, cores: int) -> None:
        self._capacity = capacity
        self.cores = cores

    def release(self) -> None:
        """Return the cores; a second call does nothing."""
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
    """Refuse instances beyond a quota, in AWS's words.

    Args:
        quotas: Instance type -> instances allowed at once.
        instance_type: The type asked for.
        in_use: Instances of the type that run now.
        wanted: Instances asked for.
        purpose: "training job", "processing job", "transform job" or "endpoint".

    Raises:
        AwsError: ResourceLimitExceeded.
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
