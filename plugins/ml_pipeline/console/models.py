"""Models page: the versions of a data set's classifier side by side, and two of them compared."""

from __future__ import annotations

from functools import partial

from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.console.store import Absent, Store
from ml_pipeline.registry.packages import Package
from ml_pipeline.requests.types import Document

_SHOWN = 100
_FLIPPED = 200


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
    serving = serves(store)

    def one(summary: Document) -> Document:
        package = _package(store, summary)
        uri = package["metadata"].get("evaluation_uri", "")
        try:
            figures = evaluation(store, uri)["figures"]
            missing = None
        except Absent as absent:
            figures, missing = None, str(absent)
        return {
            **package,
            "figures": figures,
            "missing": missing,
            "endpoints": serving.get(package["model_uri"], []),
        }

    found = [version for version in store.every(one, summaries) if version is not None]
    endpoint = next((version["endpoints"][0] for version in found if version["endpoints"]), "")
    return [{**version, "deploy": _deployment(group, version, endpoint)} for version in found]


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
    """Return a package; its description is asked for again only when its approval changed."""
    arn, status = summary["ModelPackageArn"], summary["ModelApprovalStatus"]

    def read() -> Document:
        found = store.client("sagemaker").describe_model_package(ModelPackageName=arn)
        by = found.get("LastModifiedBy") or found.get("CreatedBy") or {}
        return {
            "arn": arn,
            "version": int(found["ModelPackageVersion"]),
            "status": status,
            "created": found["CreationTime"].isoformat(),
            "note": found.get("ApprovalDescription"),
            "approver": by.get("UserProfileName"),
            "model_uri": found["InferenceSpecification"]["Containers"][0]["ModelDataUrl"],
            "metadata": found.get("CustomerMetadataProperties", {}),
        }

    return store.lasting(("package", arn, status), read)


def evaluation(store: Store, uri: str) -> Document:
    """Return what the pages show of an evaluation.json.

    Raises:
        Absent: It is gone, or written by another release.
    """
    if not uri:
        raise Absent("this version has no evaluation")

    def read() -> Document:
        document = store.json_at(uri)
        try:
            return _shown(document)
        except (KeyError, TypeError) as error:
            raise Absent(f"{uri} is of another release ({error})") from error

    return store.lasting(("evaluation", uri), read)


def _shown(document: Document) -> Document:
    names = ("accuracy", "top5_accuracy", "macro_f1", "log_loss", "photos", "runtime", "photos_per_second")
    return {
        "figures": {
            **{name: document.get(name) for name in names},
            "interval": document["accuracy_interval"],
            "latency_ms": document["latency"]["p50"],
            "calibration_error": document["calibration"]["ece_after"],
        },
        "dataset": document.get("dataset"),
        "classes": [
            {name: row.get(name) for name in ("name", "photos", "recall", "precision")}
            for row in document["classes"]
        ],
        "confusion": document["confusion"],
        "comparison": document.get("comparison"),
    }


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
    variants = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
    models = [variant["ModelName"] for variant in variants if "ModelName" in variant]
    found = [sagemaker.describe_model(ModelName=model) for model in models]
    return [model.get("PrimaryContainer", {}).get("ModelDataUrl", "") for model in found]


def compare(store: Store, group: str, left: int, right: int) -> Document:
    """Return how two versions differ: figures, classes, and the test photos that only one gets right.

    Raises:
        Absent: One of the two, or its evaluation, is gone.
    """
    known = {version["version"]: version for version in versions(store, group)}
    for number in (left, right):
        if number not in known:
            raise Absent(f"{group} has no version {number}")
    one, other = known[left], known[right]
    before = evaluation(store, one["metadata"].get("evaluation_uri", ""))
    after = evaluation(store, other["metadata"].get("evaluation_uri", ""))
    recall = {row["name"]: row for row in before["classes"]}
    changed = [
        {
            "name": row["name"],
            "before": recall[row["name"]]["recall"],
            "after": row["recall"],
            "photos": row["photos"],
        }
        for row in after["classes"]
        if row["name"] in recall and row["recall"] != recall[row["name"]]["recall"]
    ]
    names = {row["name"] for row in after["classes"]}
    return {
        "left": one,
        "right": other,
        "changed": sorted(changed, key=lambda row: -abs(row["after"] - row["before"])),
        "added": sorted(names - set(recall)),
        "removed": sorted(set(recall) - names),
        **_flips(store, one, other),
    }


def _flips(store: Store, one: Document, other: Document) -> Document:
    try:
        before = answers(store, one["metadata"].get("predictions_uri", ""))
        after = answers(store, other["metadata"].get("predictions_uri", ""))
    except Absent as absent:
        return {"flipped": [], "flips_missing": str(absent)}
    flipped = [
        {"key": key, "class": label, "before": before[key][1], "after": prediction}
        for key, (label, prediction) in after.items()
        if key in before and (before[key][1] == before[key][0]) != (prediction == label)
    ]
    return {"flipped": flipped[:_FLIPPED], "flips": len(flipped), "flips_missing": None}


def answers(store: Store, uri: str) -> dict[str, tuple[str, str]]:
    """Return label and prediction of each test photo by key.

    Raises:
        Absent: predictions.jsonl is gone, or too large to show.
    """
    import json

    if not uri:
        raise Absent("this version has no predictions")

    def read() -> dict[str, tuple[str, str]]:
        rows = (json.loads(line) for line in store.bytes_at(uri).decode().splitlines())
        return {row["key"]: (row["label"], row["prediction"]) for row in rows}

    return store.table(("answers", uri), read)
