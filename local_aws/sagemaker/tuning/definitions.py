"""Training job definitions of a tuning job, each with a searcher, and the requests of their trials."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from local_aws.sagemaker.jobs.script_mode import OBJECTIVE_METRIC
from local_aws.sagemaker.tuning.search_space import read_ranges
from local_aws.sagemaker.tuning.searchers import Searcher, make_searcher
from local_aws.state.resources import Document, Resource

OBJECTIVE = "FinalHyperParameterTuningJobObjectiveMetric"


@dataclass
class Definition:
    """One training job definition with its search space and objective."""

    name: str
    document: Document
    searcher: Searcher
    metric: str
    maximize: bool
    exhausted: bool = False


def definitions(request: Document, seed: int) -> list[Definition]:
    """Read the definitions of a request, each with its own searcher.

    Raises:
        AwsError: ValidationException for a range that cannot be sampled.
    """
    config = request["HyperParameterTuningJobConfig"]
    found = []
    for index, document in enumerate(
        request.get("TrainingJobDefinitions") or [request["TrainingJobDefinition"]]
    ):
        ranges = ranges_of(document, config)
        objective = document.get("TuningObjective", config.get("HyperParameterTuningJobObjective"))
        maximize = objective["Type"] == "Maximize"
        found.append(
            Definition(
                name=document.get("DefinitionName", ""),
                document=document,
                searcher=make_searcher(config["Strategy"], read_ranges(ranges), seed + index, maximize),
                metric=objective["MetricName"],
                maximize=maximize,
            )
        )
    return found


def ranges_of(document: Document, config: Document) -> Document:
    """Return the parameter ranges of a definition, else those of the whole job."""
    ranges: Document = document.get("HyperParameterRanges") or config.get("ParameterRanges") or {}
    return ranges


def seed_of(request: Document) -> int:
    """Return RandomSeed, else a number derived from the job's name and time, so that jobs search differently."""
    seed = request["HyperParameterTuningJobConfig"].get("RandomSeed")
    if seed is not None:
        return int(seed)
    text = f"{request['HyperParameterTuningJobName']}{request.get('CreationTime')}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


_PASSED_ON = (
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "VpcConfig",
    "OutputDataConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "RetryStrategy",
    "Environment",
)


def trial_request(definition: Definition, name: str, point: Mapping[str, str]) -> Document:
    """Build the CreateTrainingJob request of one trial."""
    document = definition.document
    request: Document = {member: document[member] for member in _PASSED_ON if member in document}
    request["TrainingJobName"] = name
    request["StoppingCondition"] = dict(document["StoppingCondition"])
    request["HyperParameters"] = {
        **document.get("StaticHyperParameters", {}),
        **point,
        OBJECTIVE_METRIC: definition.metric,
    }
    request["ResourceConfig"] = resources(document)
    if "CheckpointConfig" in document:
        checkpoints = document["CheckpointConfig"]
        request["CheckpointConfig"] = {**checkpoints, "S3Uri": f"{checkpoints['S3Uri'].rstrip('/')}/{name}"}
    return request


def resources(document: Document) -> Document:
    """Return the ResourceConfig of a definition.

    The first instance of a HyperParameterTuningResourceConfig's list is used.
    """
    if "ResourceConfig" in document:
        return dict(document["ResourceConfig"])
    tuning = document["HyperParameterTuningResourceConfig"]
    first = tuning["InstanceConfigs"][0] if tuning.get("InstanceConfigs") else tuning
    return {
        "InstanceType": first["InstanceType"],
        "InstanceCount": first["InstanceCount"],
        "VolumeSizeInGB": first.get("VolumeSizeInGB", tuning.get("VolumeSizeInGB", 30)),
    }


def teach(definition: Definition, warm: Sequence[Resource]) -> None:
    """Teach a searcher the training jobs of parent tuning jobs."""
    for resource in warm:
        value = resource.document.get(OBJECTIVE, {}).get("Value")
        if value is not None:
            definition.searcher.learn(resource.document["TunedHyperParameters"], value)
