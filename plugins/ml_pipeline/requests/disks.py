"""Disks of instances: how large they can be, and how large one has to be for what it holds."""

from __future__ import annotations

import math
import re
from typing import Final

from ml_pipeline.requests import preferences

# Of a disk of the default size, what image, code, checkpoints and output leave to the inputs.
_ROOM_GB = 10
_LARGEST_GB = 16_384
# Instance types with instance store volumes: the families with a "d" behind their number, and these.
_OWN = re.compile(r"^ml\.([a-z]+\d+[a-z]*d[a-z]*|g5|g6e?|gr6|g7e?|p5e?n?|p6.*|trn\d.*|inf2)\.")
# Their GB, by family and size, from the pages of EC2's instance types, as of 2026-11. They cannot be chosen. Those of
# other families that SageMaker trains on (botocore 1.43: g7, g7e, p6-b300, p6e-gb200, trn2) are not known here.
_OWN_GB: Final = {
    "g4dn": {
        "xlarge": 125, "2xlarge": 225, "4xlarge": 225, "8xlarge": 900, "12xlarge": 900, "16xlarge": 900,
    },
    "g5": {
        "xlarge": 250, "2xlarge": 450, "4xlarge": 600, "8xlarge": 900, "12xlarge": 3800, "16xlarge": 1900,
        "24xlarge": 3800, "48xlarge": 7600,
    },
    "g6": {
        "xlarge": 250, "2xlarge": 450, "4xlarge": 600, "8xlarge": 900, "12xlarge": 3760, "16xlarge": 1880,
        "24xlarge": 3760, "48xlarge": 7520,
    },
    "g6e": {
        "xlarge": 250, "2xlarge": 450, "4xlarge": 600, "8xlarge": 900, "12xlarge": 3800, "16xlarge": 1900,
        "24xlarge": 3800, "48xlarge": 7600,
    },
    "p3dn": {"24xlarge": 1800},
    "p4d": {"24xlarge": 8000},
    "p4de": {"24xlarge": 8000},
    "p5": {"4xlarge": 3840, "48xlarge": 30_720},
    "p5e": {"48xlarge": 30_720},
    "p5en": {"48xlarge": 30_720},
    "p6-b200": {"48xlarge": 30_720},
    "r5d": {
        "large": 75, "xlarge": 150, "2xlarge": 300, "4xlarge": 600, "8xlarge": 1200, "12xlarge": 1800,
        "16xlarge": 2400, "24xlarge": 3600,
    },
    "trn1": {"2xlarge": 474, "32xlarge": 7600},
    "trn1n": {"32xlarge": 7600},
}  # fmt: skip


def has_own(instance_type: str) -> bool:
    """Tell whether an instance type has disks of its own, which encrypt themselves and take no key."""
    return bool(_OWN.match(instance_type))


def own_gb(instance_types: str) -> int | None:
    """Return the smallest disk of their own among instance types, in GB; None: each gets one of EBS of any size."""
    names = [name.removeprefix("ml.").partition(".") for name in preferences.split(instance_types)]
    return min(
        (_OWN_GB[family][size] for family, _, size in names if size in _OWN_GB.get(family, {})), default=None
    )


def largest_gb(instance_types: str) -> int:
    """Return the largest disk that all of these instance types can have, in GB."""
    return own_gb(instance_types) or _LARGEST_GB


def needed_gb(least_gb: int, inputs: float) -> int:
    """Return the size of a disk, in GB, with room for `inputs` bytes, whether there is such a disk or not."""
    # A tenth more: files take whole blocks, and shards of different size spread unevenly.
    return least_gb + max(0, math.ceil(inputs * 11 / (10 * 2**30)) - _ROOM_GB)


def disk_gb(least_gb: int, inputs: float) -> int:
    """Return the size of a disk of EBS, in GB, with room for `inputs` bytes.

    Raises:
        ValueError: No disk is large enough.
    """
    size = needed_gb(least_gb, inputs)
    if size > _LARGEST_GB:
        raise ValueError(
            f"each instance would need a disk of {size} GB, and the largest has {_LARGEST_GB}: take more "
            "instances, or fewer photos"
        )
    return size
