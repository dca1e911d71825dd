"""Quotas: the instances of running jobs against the account's limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from local_aws.context import Context
from local_aws.execution.capacity import check_quota
from local_aws.state.resources import Document

Instances = Callable[[Document], Iterable[tuple[str, int]]]
"""(instance type, count) of a job's document."""


def check(context: Context, region: str, kind: str, request: Document, instances: Instances) -> None:
    """Refuse a job whose instances exceed a quota.

    Args:
        context: The running local_aws.
        region: The request's region.
        kind: The store's kind, such as "training-job".
        request: The Create request.
        instances: Reads (instance type, count) from a request or document.

    Raises:
        AwsError: ResourceLimitExceeded.
    """
    quotas = context.settings.quotas
    wanted = [
        (instance_type, count) for instance_type, count in instances(request) if instance_type in quotas
    ]
    if not wanted:
        return
    in_use: Counter[str] = Counter()
    for status in ("InProgress", "Stopping"):
        for job in context.store.all(kind, region, status):
            for instance_type, count in instances(job.document):
                in_use[instance_type] += count
    for instance_type, count in wanted:
        check_quota(quotas, instance_type, in_use[instance_type], count, kind.replace("-", " "))
