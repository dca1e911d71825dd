"""Instance types in order of preference, "ml.m5.xlarge, ml.m6i.xlarge": AWS takes the first with capacity."""

from __future__ import annotations

from ml_pipeline.requests.types import Document

# InstancePreferences of a training job and InstancePools of an endpoint variant hold up to five.
LIMIT = 5
_SEPARATOR = ", "


def split(instance_type: str) -> tuple[str, ...]:
    """Return the instance types of a param, the preferred one first."""
    return tuple(name.strip() for name in instance_type.split(","))


def of_training(instance_type: str) -> Document:
    """Return the members of ResourceConfig that name the instance types of a training job."""
    names = split(instance_type)
    if len(names) == 1:
        return {"InstanceType": names[0]}
    return {"InstancePreferences": [{"InstanceType": name} for name in names]}


def of_variant(instance_type: str) -> Document:
    """Return the members of a ProductionVariant that name its instance types."""
    names = split(instance_type)
    if len(names) == 1:
        return {"InstanceType": names[0]}
    return {"InstancePools": [{"InstanceType": name, "Priority": i} for i, name in enumerate(names, 1)]}


def in_variant(variant: Document) -> str | None:
    """Return the instance types of a ProductionVariant as a param gives them; a serverless variant has none."""
    pools = sorted(variant.get("InstancePools", []), key=lambda pool: pool["Priority"])
    return _SEPARATOR.join(pool["InstanceType"] for pool in pools) or variant.get("InstanceType")


def used(resources: Document) -> tuple[str, int]:
    """Return the instance type and count of a described ResourceConfig that are billed."""
    name = resources.get("SelectedInstanceType") or resources.get("InstanceType")
    if not name:  # the job has not got its instances yet
        name = resources["InstancePreferences"][0]["InstanceType"]
    return name, int(resources.get("SelectedInstanceCount") or resources["InstanceCount"])
