"""Models page: the versions of a data set's classifier side by side."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from functools import partial

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.console import evaluations
from ml_pipeline.console.store import Absent, Store
from ml_pipeline.costs.prices import Prices
from ml_pipeline.costs.rates import usd_per_million
from ml_pipeline.registry.packages import Package
from ml_pipeline.requests.types import Document

_SHOWN = 100
_CHUNK = 2**20
# Files of the bundle that may be downloaded; labels and transform are parts of model.json.
_MEMBERS = {
    "model.onnx": "model.onnx",
    "model.int8.onnx": "model.int8.onnx",
    "model.safetensors": "model.safetensors",
}
DOWNLOADS = ("model.tar.gz", *_MEMBERS, "labels.txt", "transform.json")


def groups(store: Store) -> list[str]:
    """Return the package groups, newest first: one per data set."""

    def read() -> list[str]:
        pages = store.client("sagemaker").get_paginator("list_model_package_groups")
        found = pages.paginate(SortBy="CreationTime", SortOrder="Descending")
        return [
            group["ModelPackageGroupName"] for page in found for group in page["ModelPackageGroupSummaryList"]
        ]

    return store.brief("groups", read)


def versions(store: Store, group: str) -> list[Document]:
    """Return the newest model versions of `group` with their figures.

    A figure is None where its evaluation is gone or of an older release.
    """
    summaries = store.brief(("packages", group), lambda: _summaries(store, group))
    serving, prices = serves(store), Prices.load(store.settings)

    def one(summary: Document) -> Document:
        package = _package(store, summary)
        uri = package["metadata"].get("evaluation_uri", "")
        try:
            figures = store.lasting(("figures", uri), partial(evaluations.figures, store, uri))
            missing = None
        except Absent as absent:
            figures, missing = None, str(absent)
        return {
            **package,
            "figures": figures,
            "missing": missing,
            "bytes": store.size(package["model_uri"]),
            "usd_per_million": _serving_price(prices, package["machine"], figures),
            "endpoints": serving.get(package["model_uri"], []),
        }

    found = [version for version in store.every(one, summaries) if version is not None]
    endpoint = next((version["endpoints"][0] for version in found if version["endpoints"]), "")
    return [{**version, "deploy": _deployment(group, version, endpoint)} for version in found]


def _serving_price(prices: Prices, machine: str | None, figures: Document | None) -> float | None:
    """Return the cost of a million photos on a busy machine, at the rate that the evaluation measured."""
    hourly = prices.sagemaker.get(machine or "")
    return usd_per_million(hourly, figures["photos_per_second"]) if hourly and figures else None


def _deployment(group: str, version: Document, endpoint: str) -> Document | None:
    """Build the params of a run of `deploy` that brings a version into service; None where it would refuse.

    Args:
        group: Name of the data set.
        version: A row of `versions`.
        endpoint: The endpoint of the newest version in service; "" leaves the choice to the DAG.
    """
    package = Package(
        version["arn"],
        version["status"],
        version["model_uri"],
        "",
        version["metadata"],
        version["note"] or "",
    )
    if version["endpoints"] or not package.deployable:
        return None
    return {"dataset_name": group, "version": str(version["version"]), "endpoint_name": endpoint}


def _summaries(store: Store, group: str) -> list[Document]:
    from botocore.exceptions import ClientError

    try:
        found: list[Document] = store.client("sagemaker").list_model_packages(
            ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending", MaxResults=_SHOWN
        )["ModelPackageSummaryList"]
    except ClientError as error:
        if is_missing(error):
            raise Absent(f"there is no model of {group} yet") from error
        raise
    if not found:
        raise Absent(f"there is no model of {group} yet")
    return found


def _package(store: Store, summary: Document) -> Document:
    """Return a package; its description is asked for again only when its approval changed.

    Raises:
        Absent: It has no model.tar.gz in S3: the pipeline did not make it.
    """
    arn, status = summary["ModelPackageArn"], summary["ModelApprovalStatus"]

    def read() -> Document:
        found = store.client("sagemaker").describe_model_package(ModelPackageName=arn)
        try:
            inference = found["InferenceSpecification"]
            uri = inference["Containers"][0]["ModelDataUrl"]
            objects.split_uri(uri)
        except (KeyError, IndexError, ValueError) as error:
            raise Absent(f"{arn} has no model.tar.gz in S3") from error
        by = found.get("LastModifiedBy") or found.get("CreatedBy") or {}
        return {
            "arn": arn,
            "version": int(found["ModelPackageVersion"]),
            "status": status,
            "created": found["CreationTime"].isoformat(),
            "note": found.get("ApprovalDescription"),
            "approver": by.get("UserProfileName"),
            "model_uri": uri,
            "machine": next(iter(inference.get("SupportedRealtimeInferenceInstanceTypes", [])), None),
            "metadata": found.get("CustomerMetadataProperties", {}),
        }

    return store.lasting(("package", arn, status), read)


def serves(store: Store) -> dict[str, list[str]]:
    """Return the names of the endpoints by the model.tar.gz that they serve."""

    def read() -> dict[str, list[str]]:
        sagemaker = store.client("sagemaker")
        found: dict[str, list[str]] = {}
        for page in sagemaker.get_paginator("list_endpoints").paginate():
            for endpoint in page["Endpoints"]:
                name = endpoint["EndpointName"]
                config = sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
                for uri in store.lasting(("served", config), partial(_served, sagemaker, config)):
                    found.setdefault(uri, []).append(name)
        return found

    return store.brief("serves", read)


def _served(sagemaker: Client, config: str) -> list[str]:
    kept = if_there(partial(sagemaker.describe_endpoint_config, EndpointConfigName=config))
    variants = kept.get("ProductionVariants", [])
    models = [variant["ModelName"] for variant in variants if "ModelName" in variant]
    found = [if_there(partial(sagemaker.describe_model, ModelName=model)) for model in models]
    return [model.get("PrimaryContainer", {}).get("ModelDataUrl", "") for model in found]


def if_there(describe: Callable[[], Document]) -> Document:
    """Return what a Describe call gives; {} where it was deleted: an endpoint outlives its config and its model."""
    from botocore.exceptions import ClientError

    try:
        return describe()
    except ClientError as error:
        if is_missing(error):
            return {}
        raise


def version_of(store: Store, group: str, number: int) -> Document:
    """Return one version.

    Raises:
        Absent: There is none of this number.
    """
    for version in versions(store, group):
        if version["version"] == number:
            return version
    raise Absent(f"{group} has no version {number}")


def download(store: Store, group: str, number: int, name: str) -> Iterator[bytes]:
    """Yield the bytes of one of `DOWNLOADS`: the bundle, or a part of it, which is read as a stream.

    Raises:
        Absent: The bundle, or the part, is gone.
    """
    body = store.stream(version_of(store, group, number)["model_uri"])
    if name == "model.tar.gz":
        return iter(partial(body.read, _CHUNK), b"")
    try:
        bundle = tarfile.open(fileobj=body, mode="r|gz")  # noqa: SIM115 - it is read while the answer is sent
        for member in bundle:
            path = member.name.removeprefix("./")
            opened = bundle.extractfile(member) if path in (_MEMBERS.get(name), "model.json") else None
            if opened is not None and path == name:
                return iter(partial(opened.read, _CHUNK), b"")
            if opened is not None and name not in _MEMBERS:
                return iter([_part(name, json.load(opened))])
    except (tarfile.TarError, OSError, EOFError, ValueError, KeyError) as error:
        raise Absent(f"the bundle of version {number} is damaged: {error}") from error
    raise Absent(f"the bundle of version {number} has no {name}")


def _part(name: str, card: Document) -> bytes:
    if name == "labels.txt":
        return "".join(f"{label}\n" for label in card["classes"]).encode()
    return json.dumps(card["transform"], indent=1).encode()


def served_versions(store: Store, config: str) -> list[Document]:
    """Return the model versions that an endpoint config serves: `{"group", "version"}`, where the registry has them."""
    uris = store.lasting(("served", config), partial(_served, store.client("sagemaker"), config))
    return [found for group in groups(store) for found in _in_group(store, group, uris)]


def _in_group(store: Store, group: str, uris: list[str]) -> list[Document]:
    try:
        summaries = store.brief(("packages", group), lambda: _summaries(store, group))
    except Absent:
        return []
    found = store.every(partial(_package, store), summaries)
    return [
        {"group": group, "version": package["version"]}
        for package in found
        if package is not None and package["model_uri"] in uris
    ]
