"""Choose the model version of a deployment by hand: a given one, the newest approved one, or the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.deployment import scaling, status, takeover
from ml_pipeline.registry import packages as registry
from ml_pipeline.registry.packages import Package
from ml_pipeline.requests import endpoint, preferences
from ml_pipeline.requests.types import Chosen, Document, Params
from ml_pipeline.settings import Settings

PREVIOUS = "previous"
# Instance type of an endpoint that does not exist yet.
_INSTANCE_TYPE = "ml.m5.large"


class NoSuchVersion(ValueError):
    """The version does not exist or may not be deployed; the message says what to do."""


@dataclass(frozen=True)
class _Fleet:
    instance_type: str
    instance_count: int
    max_count: int
    capture_percent: int = 100
    capture_days: int = 0


def choose(sagemaker: Client, s3: Client, autoscaling: Client, settings: Settings, params: Params) -> Chosen:
    """Settle what a run of the DAG `deploy` brings into service, and on which instances.

    Raises:
        NoSuchVersion: There is no such version, or it may not be deployed.
        EndpointTaken: The endpoint serves another data set, and `replace_endpoint` is not set.
    """
    group = params["dataset_name"] or _only_dataset(sagemaker, s3, settings)
    endpoint_name = params["endpoint_name"] or takeover.default_endpoint(sagemaker, s3, group)
    live = status.describe(sagemaker, endpoint_name)
    if live["EndpointStatus"] != status.ABSENT and not params["replace_endpoint"]:
        conflict = takeover.conflict_of(sagemaker, s3, live, group)
        if conflict:
            raise takeover.EndpointTaken(f"{conflict}: choose another endpoint_name, or set replace_endpoint")
    known = registry.packages(sagemaker, group)
    package = pick(known, group, str(params["version"] or "").strip(), serving(sagemaker, known, live))
    fleet = _fleet(sagemaker, autoscaling, live)
    version = package.metadata.get("dataset_version", "")
    return {
        "model_package_arn": package.arn,
        "status": package.status,
        "version": version_of(package),
        "dataset_name": group,
        "endpoint_name": endpoint_name,
        "instance_type": params["endpoint_instance_type"] or fleet.instance_type,
        "instance_count": int(params["endpoint_instance_count"] or fleet.instance_count),
        "max_count": int(params["endpoint_max_count"] or fleet.max_count),
        "capture_percent": int(params["capture_percent"] or fleet.capture_percent),
        "capture_days": fleet.capture_days if params["capture_days"] is None else int(params["capture_days"]),
        "manifest_uri": settings.s3(f"datasets/{group}/versions/{version}/manifest.json"),
        "predictions_uri": package.metadata.get("predictions_uri", ""),
    }


def pick(known: Sequence[Package], group: str, wanted: str, serving: Package | None) -> Package:
    """Pick the package of a version.

    Args:
        known: Packages of the group, newest first.
        group: Name of the data set.
        wanted: A version number, an ARN, "previous", or "" for the newest approved one.
        serving: The package in service, if any.

    Raises:
        NoSuchVersion: There is none, or a person has not approved it.
    """
    if wanted == PREVIOUS:
        return _before(known, group, serving)
    if not wanted:
        approved = [package for package in known if package.status == "Approved"]
        if not approved:
            raise NoSuchVersion(
                f"the data set {group!r} has no approved model: run train_and_deploy, or approve one"
            )
        return approved[0]
    found = next((package for package in known if wanted in (package.arn, str(version_of(package)))), None)
    if found is None:
        versions = ", ".join(str(version_of(package)) for package in known) or "none"
        raise NoSuchVersion(f"the data set {group!r} has no model version {wanted}; it has {versions}")
    if not found.deployable:
        raise NoSuchVersion(
            f"version {wanted} of {group!r} is {found.status}: approve its package in the registry, then deploy it"
        )
    return found


def version_of(package: Package) -> int:
    """Return the version number of a package, the last part of its ARN."""
    return int(package.arn.rpartition("/")[2])


def newer(known: Sequence[Package], arn: str) -> list[Package]:
    """Return the approved packages newer than the one with `arn`: they must not stay champions when it is deployed.

    Args:
        known: Packages of the group, newest first.
        arn: The package that is in service now.
    """
    place = next((number for number, package in enumerate(known) if package.arn == arn), 0)
    return [package for package in known[:place] if package.status == "Approved"]


def _before(known: Sequence[Package], group: str, serving: Package | None) -> Package:
    if serving is None:
        raise NoSuchVersion(
            f"no model of {group!r} is in service, so there is none to roll back: give a version"
        )
    place = known.index(serving)
    found = next((package for package in known[place + 1 :] if package.deployable), None)
    if found is None:
        raise NoSuchVersion(
            f"version {version_of(serving)} of {group!r} is the oldest that may be deployed: there is none before it"
        )
    return found


def serving(sagemaker: Client, known: Sequence[Package], live: Document) -> Package | None:
    """Return the package among `known` that an endpoint serves; None if it serves none of them."""
    from botocore.exceptions import ClientError

    name = live.get("EndpointConfigName")
    if live["EndpointStatus"] == status.ABSENT or not name:
        return None
    config = sagemaker.describe_endpoint_config(EndpointConfigName=name)
    try:
        model = sagemaker.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    except ClientError as error:
        if not is_missing(error):
            raise
        return None  # serves all the same, until it needs another instance
    uri = model["PrimaryContainer"]["ModelDataUrl"]
    return next((package for package in known if package.model_uri == uri), None)


def _fleet(sagemaker: Client, autoscaling: Client, live: Document) -> _Fleet:
    """Return the instances and the capture of the endpoint, which a deployment keeps unless it is told otherwise."""
    if live["EndpointStatus"] == status.ABSENT or not live.get("EndpointConfigName"):
        return _Fleet(_INSTANCE_TYPE, 1, 1)
    config = sagemaker.describe_endpoint_config(EndpointConfigName=live["EndpointConfigName"])
    variant = config["ProductionVariants"][0]
    limits = scaling.limits(autoscaling, live["EndpointName"])
    least, most = limits or (variant["InitialInstanceCount"], variant["InitialInstanceCount"])
    return _Fleet(preferences.in_variant(variant) or _INSTANCE_TYPE, least, most, *endpoint.captured(config))


def _only_dataset(sagemaker: Client, s3: Client, settings: Settings) -> str:
    names = [
        name for name in objects.folders(s3, settings.s3("datasets/")) if registry.packages(sagemaker, name)
    ]
    if len(names) == 1:
        return names[0]
    if not names:
        raise NoSuchVersion("no data set has a model: run train_and_deploy")
    raise NoSuchVersion(f"several data sets have models: give dataset_name, one of {', '.join(names)}")
