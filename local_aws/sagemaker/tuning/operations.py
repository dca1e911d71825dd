"""Tuning jobs: the operations, the checks beyond the service model, counters and the best job."""

from __future__ import annotations

import time
from dataclasses import replace

from local_aws.context import Context
from local_aws.errors import AwsError, validation_error
from local_aws.gateway.json_service import Call, Document
from local_aws.sagemaker.jobs.job import INTERNAL_ERROR, Jobs
from local_aws.sagemaker.operations import list_query, operation, summaries
from local_aws.sagemaker.records import RUNNING, Records
from local_aws.sagemaker.training import operations as training
from local_aws.sagemaker.training.job import TrainingJob
from local_aws.sagemaker.tuning.definitions import OBJECTIVE, definitions, ranges_of, trial_request
from local_aws.sagemaker.tuning.job import KIND, TuningJob
from local_aws.sagemaker.tuning.search_space import grid, read_ranges
from local_aws.state.resources import Resource

RECORDS = Records(
    KIND,
    "HyperParameterTuningJob",
    missing="Amazon SageMaker can't find a tuning job called {name}. Type another name.",
    missing_code="ResourceNotFound",
    exists="Hyperparameter tuning job names must be unique within an AWS account and region, and a tuning job with "
    "this name already exists ({arn})",
    exists_code="ResourceInUse",
)


@operation("CreateHyperParameterTuningJob")
def create_tuning_job(call: Call) -> Document:
    """Check the request, store the record, start the job."""
    params = call.params
    check_request(call, params)
    _check_parents(call, params.get("WarmStartConfig"))
    warm = parents_jobs(call.context, call.region, params)
    resource = RECORDS.create_from(call, HyperParameterTuningJobStatus="InProgress")
    call.context.part(Jobs).begin(TuningJob(call.context, resource, warm))
    return RECORDS.answer(resource)


def _definitions_of(params: Document) -> list[Document]:
    found: list[Document] = params.get("TrainingJobDefinitions") or [params["TrainingJobDefinition"]]
    return found


def check_request(call: Call, params: Document) -> None:
    """Check what the service model cannot express.

    Raises:
        AwsError: ValidationException.
    """
    config = params["HyperParameterTuningJobConfig"]
    single, several = params.get("TrainingJobDefinition"), params.get("TrainingJobDefinitions")
    if (single is None) == (not several):
        raise validation_error(
            "Give either TrainingJobDefinition or TrainingJobDefinitions, and not both of them."
        )
    if params.get("Autotune", {}).get("Mode") == "Enabled":
        raise validation_error("Autotune is not supported by local_aws: give parameter ranges.")
    for document in _definitions_of(params):
        _check_definition(document, config, bool(several))
    _check_limits(params, config)
    if config["Strategy"] == "Hyperband" and config.get("TrainingJobEarlyStoppingType", "Off") != "Off":
        raise validation_error(
            "TrainingJobEarlyStoppingType must be Off with the Hyperband strategy, which stops jobs by itself."
        )
    if config["Strategy"] != "Hyperband" and config.get("StrategyConfig", {}).get("HyperbandStrategyConfig"):
        raise validation_error("HyperbandStrategyConfig is for the Hyperband strategy only.")
    for definition in definitions({**params, "CreationTime": 0}, seed=0):
        training.check_request(call.context, call.region, trial_request(definition, "check", {}))


def _check_definition(document: Document, config: Document, several: bool) -> None:
    if several and "DefinitionName" not in document:
        raise validation_error("Every one of TrainingJobDefinitions needs a DefinitionName.")
    objective = document.get("TuningObjective", config.get("HyperParameterTuningJobObjective"))
    if objective is None:
        raise validation_error(
            "A hyperparameter tuning job needs an objective: give HyperParameterTuningJobObjective."
        )
    metrics = [m["Name"] for m in document["AlgorithmSpecification"].get("MetricDefinitions", [])]
    if objective["MetricName"] not in metrics:
        raise validation_error(
            "A metric is required for this hyperparameter tuning job objective. "
            "Provide a metric in the metric definitions."
        )
    dimensions = read_ranges(ranges_of(document, config))
    if not dimensions:
        raise validation_error("A hyperparameter tuning job needs at least one parameter range.")
    both = {d.name for d in dimensions} & set(document.get("StaticHyperParameters", {}))
    if both:
        raise validation_error(
            f"Hyperparameters must not be both static and tuned: {', '.join(sorted(both))}."
        )
    if config["Strategy"] == "Grid" and any(d.kind != "categorical" for d in dimensions):
        raise validation_error("The Grid strategy takes categorical parameter ranges only.")
    if "ResourceConfig" not in document and "HyperParameterTuningResourceConfig" not in document:
        raise validation_error(
            "A training job definition needs ResourceConfig or HyperParameterTuningResourceConfig."
        )


def _check_limits(params: Document, config: Document) -> None:
    limits = config["ResourceLimits"]
    most = limits.get("MaxNumberOfTrainingJobs")
    if config["Strategy"] == "Grid":
        documents = _definitions_of(params)
        points = sum(len(grid(read_ranges(ranges_of(d, config)))) for d in documents)
        if most is not None and most != points:
            raise validation_error(
                f"MaxNumberOfTrainingJobs must be left out, or be {points}, the number of points of the grid."
            )
    elif most is None:
        raise validation_error("MaxNumberOfTrainingJobs is required for this strategy.")
    if most is not None and limits["MaxParallelTrainingJobs"] > most:
        raise validation_error("MaxParallelTrainingJobs must not be greater than MaxNumberOfTrainingJobs.")


def _check_parents(call: Call, warm_start: Document | None) -> None:
    """Check the parents of a warm start.

    Raises:
        AwsError: A parent is unknown, still runs, or ran another image.
    """
    if warm_start is None:
        return
    image = _image(call.params)
    for entry in warm_start["ParentHyperParameterTuningJobs"]:
        parent = RECORDS.get(call.context, call.region, entry.get("HyperParameterTuningJobName", ""))
        if parent.status in RUNNING:
            raise validation_error(
                f"The parent tuning job {parent.name} must have ended before it can be a parent."
            )
        if warm_start["WarmStartType"] == "IdenticalDataAndAlgorithm" and _image(parent.document) != image:
            raise validation_error(
                f"IdenticalDataAndAlgorithm needs the training image of the parent tuning job {parent.name}; "
                "use TransferLearning."
            )


def parents_jobs(context: Context, region: str, request: Document) -> list[Resource]:
    """Return the training jobs that a warm start learns from; none without a warm start."""
    entries = request.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", [])
    return [
        job
        for entry in entries
        for job in context.store.all(TrainingJob.kind, region, parent=entry["HyperParameterTuningJobName"])
    ]


def _image(document: Document) -> str:
    return str(_definitions_of(document)[0]["AlgorithmSpecification"].get("TrainingImage", ""))


@operation("DescribeHyperParameterTuningJob")
def describe_tuning_job(call: Call) -> Document:
    """Return the record with counters and the best job, computed from the current training jobs."""
    resource = RECORDS.of(call)
    return {**resource.document, **standing(call, resource)}


def standing(call: Call, resource: Resource) -> Document:
    """Compute the counters, BestTrainingJob, OverallBestTrainingJob and ConsumedResources of a tuning job."""
    jobs = call.context.store.all(TrainingJob.kind, call.region, parent=resource.name)
    end = resource.document.get("HyperParameterTuningEndTime", time.time())
    members: Document = {
        "TrainingJobStatusCounters": _status_counters(jobs),
        "ObjectiveStatusCounters": _objective_counters(jobs),
        "ConsumedResources": {"RuntimeInSeconds": int(end - resource.created)},
    }
    best = best_job(jobs)
    if best:
        members["BestTrainingJob"] = dict(best.document)
    warm_start = resource.document.get("WarmStartConfig")
    if warm_start and warm_start["WarmStartType"] == "IdenticalDataAndAlgorithm":
        for entry in warm_start["ParentHyperParameterTuningJobs"]:
            parent = entry["HyperParameterTuningJobName"]
            jobs = jobs + call.context.store.all(TrainingJob.kind, call.region, parent=parent)
        overall = best_job(jobs)
        if overall:
            members["OverallBestTrainingJob"] = dict(overall.document)
    return members


def _status_counters(jobs: list[Resource]) -> Document:
    counters = {"Completed": 0, "InProgress": 0, "RetryableError": 0, "NonRetryableError": 0, "Stopped": 0}
    for job in jobs:
        status = job.document["TrainingJobStatus"]
        if status == "Failed":
            retryable = job.document.get("FailureReason", "").startswith(INTERNAL_ERROR)
            status = "RetryableError" if retryable else "NonRetryableError"
        counters["InProgress" if status == "Stopping" else status] += 1
    return counters


def _objective_counters(jobs: list[Resource]) -> Document:
    counters = {"Succeeded": 0, "Pending": 0, "Failed": 0}
    for job in jobs:
        counters[job.document["ObjectiveStatus"]] += 1
    return counters


def best_job(jobs: list[Resource]) -> Resource | None:
    """Return the job with the best objective, the earliest of equals; None without one."""
    scored = [job for job in jobs if OBJECTIVE in job.document]
    if not scored:
        return None
    sign = 1.0 if scored[0].document[OBJECTIVE].get("Type") == "Maximize" else -1.0
    return max(scored, key=lambda job: (sign * job.document[OBJECTIVE]["Value"], -job.created))


@operation("ListHyperParameterTuningJobs")
def list_tuning_jobs(call: Call) -> Document:
    """Filter by name, time and status; add the counters."""
    query = list_query(call, KIND)
    page = call.context.store.page(query)
    entries = []
    for resource in page.resources:
        config = resource.document["HyperParameterTuningJobConfig"]
        entries.append(
            {
                **resource.document,
                **standing(call, resource),
                "Strategy": config["Strategy"],
                "ResourceLimits": config["ResourceLimits"],
            }
        )
    return {"HyperParameterTuningJobSummaries": entries, "NextToken": page.next_token or None}


@operation("ListTrainingJobsForHyperParameterTuningJob")
def list_training_jobs_for_tuning_job(call: Call) -> Document:
    """Filter its training jobs by name, time and status; sorted by objective, only those that have one."""
    resource = RECORDS.of(call)
    sort_by = call.params.get("SortBy", "Name")
    query = list_query(
        call,
        TrainingJob.kind,
        parent=resource.name,
        descending=call.params.get("SortOrder", "Ascending") == "Descending",
        sort_by=f"$.{OBJECTIVE}.Value" if sort_by == "FinalObjectiveMetricValue" else "name",
    )
    if sort_by in ("CreationTime", "Status"):
        query = replace(query, sort_by={"CreationTime": "created", "Status": "status"}[sort_by])
    return summaries(call, query, "TrainingJobSummaries")


@operation("StopHyperParameterTuningJob")
def stop_tuning_job(call: Call) -> None:
    """Start no new trials and stop the running ones."""
    call.context.part(Jobs).stop(call.context, RECORDS.of(call), RECORDS)


def _require_ended(call: Call, resource: Resource) -> None:
    if resource.status in RUNNING:
        raise AwsError(
            "ResourceInUse", f"The tuning job {resource.name} must have ended before it can be deleted."
        )


RECORDS.deletes(_require_ended)  # its training jobs stay
