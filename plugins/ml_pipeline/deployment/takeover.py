"""Choose the endpoint of a run, and name the model it would replace: no endpoint is taken over silently."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import JobKind, describe, is_missing
from ml_pipeline.dataset import version as dataset
from ml_pipeline.dataset.photos import classes_at, dataset_name_of, sha256_of
from ml_pipeline.deployment import status
from ml_pipeline.requests import preferences
from ml_pipeline.requests.endpoint import DATASET_TAG, VERSION_TAG
from ml_pipeline.requests.names import is_ours
from ml_pipeline.requests.types import BilledEndpoint, Document, Params
from ml_pipeline.settings import Settings

# Endpoint of earlier releases, whatever the data set.
OLD_DEFAULT = "photo-classifier"
# Photos per class whose bytes are compared to recognize a renamed class.
_SAMPLES = 3
_MANIFEST = re.compile(r"/datasets/([^/]+)/versions/([^/]+)/manifest\.json$")
_JOB = re.compile(r"/jobs/([^/]+)/output/model\.tar\.gz$")


class EndpointTaken(ValueError):
    """The endpoint serves something else; the message says what, and how to go on."""


@dataclass(frozen=True)
class Served:
    """The data set version whose model an endpoint serves."""

    dataset_name: str
    version: str


@dataclass(frozen=True)
class Target:
    """The data set and the endpoint of a run.

    Attributes:
        replaces: What the endpoint serves that the run would replace, in words; None if it is the same data set.
    """

    dataset_name: str
    endpoint_name: str
    replaces: str | None = None


def target(sagemaker: Client, s3: Client, settings: Settings, params: Params) -> Target:
    """Settle the names of a run of `train_and_deploy`.

    Raises:
        EndpointTaken: The endpoint serves another data set, or classes that the photos do not have, and
            `replace_endpoint` is not set.
    """
    name = params["dataset_name"] or dataset_name_of(params["data"])
    endpoint_name = params["endpoint_name"] or default_endpoint(sagemaker, s3, name)
    live = status.describe(sagemaker, endpoint_name)
    conflict = conflict_of(sagemaker, s3, live, name)
    if conflict is None and live["EndpointStatus"] != status.ABSENT:
        conflict = _lost_classes(sagemaker, s3, settings, live, params["data"])
    if conflict and not params["replace_endpoint"]:
        raise EndpointTaken(
            f"{conflict}: choose another endpoint_name, or set replace_endpoint; a person then has to approve"
        )
    return Target(name, endpoint_name, conflict)


def default_endpoint(sagemaker: Client, s3: Client, dataset_name: str) -> str:
    """Return the endpoint of a run that names none: the data set's, or the old default if it serves that data set."""
    live = status.describe(sagemaker, OLD_DEFAULT)
    found = served(sagemaker, s3, live)
    return OLD_DEFAULT if found and found.dataset_name == dataset_name else dataset_name


def conflict_of(sagemaker: Client, s3: Client, live: Document, dataset_name: str) -> str | None:
    """Say what the endpoint serves, if that is not a model of `dataset_name`; None for an endpoint without a model.

    Args:
        sagemaker: boto3 client of SageMaker.
        s3: boto3 client of S3.
        live: Description of the endpoint, see `status.describe`.
        dataset_name: Name of the data set that the run trains on.
    """
    if not live.get("EndpointConfigName") or live["EndpointStatus"] == "Failed":
        return None
    found = served(sagemaker, s3, live)
    if found is None:
        return f"endpoint {live['EndpointName']} serves a model that this project did not train"
    if found.dataset_name != dataset_name:
        return f"endpoint {live['EndpointName']} serves the data set {found.dataset_name!r}, not {dataset_name!r}"
    return None


def served(sagemaker: Client, s3: Client, live: Document) -> Served | None:
    """Return the data set version that an endpoint serves; None if there is none, or its model is not this project's.

    Configs of this release carry it as tags; behind older ones it is found through the job that trained the model.
    """
    from botocore.exceptions import ClientError

    name = live.get("EndpointConfigName")
    if not name:
        return None
    try:
        config = sagemaker.describe_endpoint_config(EndpointConfigName=name)
        tags = _tags(sagemaker, config["EndpointConfigArn"])
        if DATASET_TAG in tags:
            return Served(tags[DATASET_TAG], tags.get(VERSION_TAG, ""))
        model = sagemaker.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    except ClientError as error:
        if is_missing(error):
            return None
        raise
    return _trained_on(sagemaker, s3, model.get("PrimaryContainer", {}).get("ModelDataUrl", ""))


def billed(sagemaker: Client, s3: Client) -> list[BilledEndpoint]:
    """List the project's endpoints, all of which are billed; `usd_per_hour` is filled in by the plan."""
    found: list[BilledEndpoint] = []
    for page in sagemaker.get_paginator("list_endpoints").paginate():
        for row in page["Endpoints"]:
            if not is_ours(sagemaker.list_tags(ResourceArn=row["EndpointArn"])["Tags"]):
                continue
            live = status.describe(sagemaker, row["EndpointName"])
            if live["EndpointStatus"] != status.ABSENT:
                found.append(_billed(sagemaker, s3, live))
    return found


def named(sagemaker: Client, endpoint_name: str) -> str:
    """Return `endpoint_name`, which must not be empty.

    Raises:
        ValueError: It is empty; the message lists the project's endpoints.
    """
    if endpoint_name:
        return endpoint_name
    names = [
        row["EndpointName"]
        for page in sagemaker.get_paginator("list_endpoints").paginate()
        for row in page["Endpoints"]
        if is_ours(sagemaker.list_tags(ResourceArn=row["EndpointArn"])["Tags"])
    ]
    choice = f"one of {', '.join(sorted(names))}" if names else "but this project has none"
    raise ValueError(f"endpoint_name is empty: give the endpoint, {choice}")


def warnings(target: Target, endpoints: Sequence[BilledEndpoint]) -> list[str]:
    """Return lines about what the run replaces, and about endpoints that are being billed."""
    lines = [f"this run replaces it once a person has approved: {target.replaces}"] if target.replaces else []
    for endpoint in endpoints:
        usd = endpoint["usd_per_hour"]
        price = "an unknown price" if usd is None else f"${usd:.3f}"
        lines.append(
            f"endpoint {endpoint['endpoint_name']} (data set {endpoint['dataset_name'] or 'unknown'}) is being billed: "
            f"{endpoint['instance_count']} x {endpoint['instance_type']}, {price} per hour; the DAG teardown ends that"
        )
    return lines


def _billed(sagemaker: Client, s3: Client, live: Document) -> BilledEndpoint:
    found = served(sagemaker, s3, live)
    variants = live.get("ProductionVariants") or [{}]
    config: Document = {}
    if live.get("EndpointConfigName"):
        config = sagemaker.describe_endpoint_config(EndpointConfigName=live["EndpointConfigName"])
    machine = (config.get("ProductionVariants") or [{}])[0]
    count = variants[0].get("CurrentInstanceCount") or machine.get("InitialInstanceCount") or 1
    return {
        "endpoint_name": live["EndpointName"],
        "dataset_name": found.dataset_name if found else None,
        "instance_type": preferences.in_variant(machine),
        "instance_count": int(count),
        "usd_per_hour": None,
    }


def _trained_on(sagemaker: Client, s3: Client, model_uri: str) -> Served | None:
    job = _JOB.search(model_uri)
    if not job:
        return None
    training = describe(sagemaker, JobKind.TRAINING, job[1])
    if training:
        channels = [
            channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in training.get("InputDataConfig", [])
        ]
    else:
        # Trained on an instance: its job.json lists the channels.
        uri = f"{model_uri.removesuffix('output/model.tar.gz')}job.json"
        if not objects.exists(s3, uri):
            return None
        channels = [channel["uri"] for channel in objects.read_json(s3, uri)["channels"]]
    found = next((match for uri in channels if (match := _MANIFEST.search(uri))), None)
    return Served(found[1], found[2]) if found else None


def _lost_classes(sagemaker: Client, s3: Client, settings: Settings, live: Document, data: str) -> str | None:
    """Name the classes that the endpoint answers and the photos no longer have, renamed and merged ones left out."""
    found = served(sagemaker, s3, live)
    if found is None or not found.version:
        return None
    folder = settings.s3(f"datasets/{found.dataset_name}/versions/{found.version}/")
    if not objects.exists(s3, f"{folder}manifest.json"):
        return None
    before = set(dataset.load(s3, f"{folder}manifest.json").classes)
    now = classes_at(data, s3, _SAMPLES)
    lost = before - now.keys()
    if lost:
        from model_code.data.manifest import read_photos_jsonl

        labels = {
            row.sha256: row.label for row in read_photos_jsonl(objects.read(s3, f"{folder}photos.jsonl"))
        }
        samples = (path for name in now.keys() - before for path in now[name])
        lost -= {labels.get(sha256_of(data, path, s3), "") for path in samples}
    if not lost:
        return None
    names = ", ".join(repr(name) for name in sorted(lost)[:5]) + (", ..." if len(lost) > 5 else "")
    return f"endpoint {live['EndpointName']} serves {len(lost)} classes that are not at {data!r} ({names})"


def _tags(sagemaker: Client, arn: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]}
