"""Training jobs: the operations and the checks beyond the service model."""

from __future__ import annotations

from typing import Any

from local_aws.context import Context
from local_aws.errors import validation_error
from local_aws.execution.images import Contract, Image
from local_aws.gateway.json_service import Call, Document
from local_aws.sagemaker.jobs import quotas
from local_aws.sagemaker.jobs.job import Jobs
from local_aws.sagemaker.jobs.machines import instance_groups
from local_aws.sagemaker.jobs.metrics import check_definitions
from local_aws.sagemaker.operations import list_query, operation, request_tags, summaries
from local_aws.sagemaker.records import Records
from local_aws.sagemaker.s3_data import check_input, check_output
from local_aws.sagemaker.training import warm_pools
from local_aws.sagemaker.training.job import KIND, TrainingJob, note_end
from local_aws.sagemaker.training.transitions import transition
from local_aws.state.resources import Resource

RECORDS = Records(
    KIND,
    "TrainingJob",
    missing="Requested resource not found.",
    exists="Training job names must be unique within an AWS account and region, and a training job with this name "
    "already exists ({arn})",
    exists_code="ResourceInUse",
)

_UNSUPPORTED_LAUNCHERS = (
    "sagemaker_mpi_enabled",
    "sagemaker_pytorch_ddp_enabled",
    "sagemaker_parameter_server_enabled",
    "sagemaker_distributed_dataparallel_enabled",
)


@operation("CreateTrainingJob")
def create_training_job(call: Call) -> Document:
    """Check the request, store the record, start the job."""
    resource = create(call.context, call.region, call.params, request_tags(call))
    return RECORDS.answer(resource)


def create(
    context: Context,
    region: str,
    params: Document,
    tags: dict[str, str],
    *,
    parent: str = "",
    parallel: int = 1,
    members: Document | None = None,
) -> Resource:
    """Create and start a training job.

    Args:
        context: The running local_aws.
        region: The request's region.
        params: The CreateTrainingJob request.
        tags: The record's tags.
        parent: Name of its tuning job.
        parallel: Trials that the tuning job runs at once.
        members: Further members of the document, such as TuningJobArn.

    Raises:
        AwsError: As CreateTrainingJob answers.
    """
    image = check_request(context, region, params)
    quotas.check(context, region, KIND, params, _instances)
    defaults = {
        "EnableNetworkIsolation": False,
        "EnableInterContainerTrafficEncryption": False,
        "EnableManagedSpotTraining": False,
    }
    started = {
        "TrainingJobStatus": "InProgress",
        "OutputDataConfig": {"KmsKeyId": "", "CompressionType": "GZIP", **params["OutputDataConfig"]},
    }
    document = RECORDS.draft(context, region, {**defaults, **params}, {**started, **(members or {})})
    transition(document, "Starting", "Starting the training job")
    warm_pools.begin(context, region, document)
    resource = RECORDS.create(context, region, document, tags, parent=parent)
    context.part(Jobs).begin(TrainingJob(context, resource, image, parallel))
    return resource


def check_request(context: Context, region: str, params: Document) -> Image:
    """Check what the service model cannot express.

    Returns:
        The image that runs the job.

    Raises:
        AwsError: ValidationException.
    """
    if "ServerlessJobConfig" in params:
        raise validation_error("ServerlessJobConfig is not supported by local_aws: give a ResourceConfig.")
    for member in ("AlgorithmSpecification", "ResourceConfig", "StoppingCondition"):
        if member not in params:
            name = member[0].lower() + member[1:]
            raise validation_error(
                f"1 validation error detected: Value null at '{name}' failed to satisfy constraint: "
                "Member must not be null"
            )
    _check_resources(params["ResourceConfig"])
    if "InstancePreferences" in params["ResourceConfig"] and params.get("EnableManagedSpotTraining"):
        raise validation_error("InstancePreferences cannot be given together with EnableManagedSpotTraining.")
    check_stopping(params)
    check_definitions(params["AlgorithmSpecification"].get("MetricDefinitions", []))
    check_channels(params.get("InputDataConfig", []), params["AlgorithmSpecification"]["TrainingInputMode"])
    check_output(params["OutputDataConfig"]["S3OutputPath"])
    checkpoints = params.get("CheckpointConfig")
    if checkpoints:
        check_output(checkpoints["S3Uri"])
        if not checkpoints.get("LocalPath", "/opt/ml/checkpoints").startswith("/opt/ml/"):
            raise validation_error(
                "CheckpointConfig.LocalPath must be under /opt/ml for local_aws to provide it."
            )
    for launcher in _UNSUPPORTED_LAUNCHERS:
        if params.get("HyperParameters", {}).get(launcher, "").strip('"').lower() == "true":
            raise validation_error(
                f"{launcher} is not supported by local_aws, which has no MPI: use sagemaker_torch_distributed_enabled."
            )
    image = find_image(context, params["AlgorithmSpecification"])
    for channel in params.get("InputDataConfig", []):
        check_input(context, region, params["RoleArn"], channel["DataSource"]["S3DataSource"]["S3Uri"])
    return image


def find_image(context: Context, specification: Document) -> Image:
    """Return the entry of the images file that runs an AlgorithmSpecification.

    Raises:
        AwsError: ValidationException for an unknown image.
    """
    uri = specification.get("TrainingImage")
    if not uri:
        raise validation_error(
            "local_aws runs training images only: give AlgorithmSpecification.TrainingImage (not AlgorithmName)."
        )
    more = [Contract.PROCESSING] if specification.get("ContainerEntrypoint") else []
    return context.images.require(uri, Contract.SCRIPT, *more)


def check_channels(channels: list[Document], default_mode: str) -> None:
    """Check the channels.

    Raises:
        AwsError: ValidationException for a channel that cannot be provided.
    """
    names = [channel["ChannelName"] for channel in channels]
    if len(set(names)) != len(names):
        raise validation_error("Channel names must be unique within a training job's InputDataConfig.")
    for channel in channels:
        source = channel["DataSource"].get("S3DataSource")
        where = f"channel {channel['ChannelName']}"
        if source is None:
            raise validation_error(f"local_aws reads channels from S3 only: give S3DataSource for {where}.")
        if channel.get("InputMode", default_mode) == "Pipe":
            raise validation_error(
                f"Pipe input mode is not supported by the training image of {where}: use File or FastFile."
            )
        if channel.get("InputMode", default_mode) == "FastFile" and source["S3DataType"] != "S3Prefix":
            # "Setting up training jobs to access datasets": fast file mode supports S3 prefixes only.
            raise validation_error(
                f"FastFile input mode reads S3Prefix only, and {where} is a {source['S3DataType']}."
            )
        if source["S3DataType"] == "AugmentedManifestFile":
            raise validation_error(f"AugmentedManifestFile needs Pipe input mode, which {where} cannot have.")
        if source["S3DataType"] not in ("S3Prefix", "ManifestFile"):
            raise validation_error(
                f"S3DataType {source['S3DataType']} of {where} is not supported by local_aws."
            )
        if (
            channel.get("CompressionType", "None") != "None"
            or channel.get("RecordWrapperType", "None") != "None"
        ):
            raise validation_error(
                f"CompressionType and RecordWrapperType of {where} are for Pipe input mode only."
            )
        check_output(source["S3Uri"])
    if default_mode == "Pipe" and any("InputMode" not in channel for channel in channels):
        raise validation_error(
            "Pipe input mode is not supported by the training image: use File or FastFile."
        )


def check_stopping(params: Document) -> None:
    """Check the StoppingCondition and fill in its default.

    MaxWaitTimeInSeconds needs managed spot training and covers MaxRuntimeInSeconds.

    Raises:
        AwsError: ValidationException.
    """
    stopping = params["StoppingCondition"]
    runtime = stopping.setdefault("MaxRuntimeInSeconds", 86400)
    wait = stopping.get("MaxWaitTimeInSeconds")
    if params.get("EnableManagedSpotTraining"):
        if wait is None or wait < runtime:
            raise validation_error(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
            )
    elif wait is not None:
        raise validation_error(
            "MaxWaitTimeInSeconds above 0 is not supported when EnableManagedSpotTraining is set to false"
        )


def _check_resources(resources: Document) -> None:
    if "InstanceGroups" in resources:
        if "InstanceType" in resources or "InstanceCount" in resources:
            raise validation_error(
                "InstanceGroups cannot be given together with InstanceType and InstanceCount."
            )
        for group in resources["InstanceGroups"]:
            _check_count(group["InstanceCount"], f"instance group {group['InstanceGroupName']}")
        return
    if "InstancePreferences" in resources:
        _select(resources)
        return
    if "InstanceType" not in resources or "InstanceCount" not in resources:
        raise validation_error("InstanceType and InstanceCount must be given in ResourceConfig.")
    _check_count(resources["InstanceCount"], "ResourceConfig")


def _select(resources: Document) -> None:
    """Check InstancePreferences and write the selected instances: the first, for which this machine has capacity."""
    preferences = resources["InstancePreferences"]
    types = [preference["InstanceType"] for preference in preferences]
    if "InstanceType" in resources or len(set(types)) < len(types):
        raise validation_error(
            "InstancePreferences must name each instance type once, and cannot be given together with InstanceType."
        )
    counts = [preference["InstanceCount"] for preference in preferences if "InstanceCount" in preference]
    if len(counts) != (0 if "InstanceCount" in resources else len(preferences)):
        raise validation_error(
            "Give InstanceCount for every one of InstancePreferences, or once in ResourceConfig."
        )
    count = counts[0] if counts else resources["InstanceCount"]
    _check_count(count, "ResourceConfig")
    resources |= {"SelectedInstanceType": types[0], "SelectedInstanceCount": count}


def _check_count(count: int, where: str) -> None:
    if count < 1:
        raise validation_error(f"InstanceCount of {where} must be at least 1, and is {count}.")


def _instances(document: Document) -> list[tuple[str, int]]:
    return [(kind, count) for _, kind, count in instance_groups(document["ResourceConfig"])]


@operation("DescribeTrainingJob")
def describe_training_job(call: Call) -> Document:
    """Return the record; a running job shows the metrics seen so far."""
    document = RECORDS.of(call).document
    if "WarmPoolStatus" in document:
        warm_pools.expire(call.context, call.region)
        document = RECORDS.of(call).document
        document["WarmPoolStatus"] = warm_pools.current(document)
    job = call.context.part(Jobs).get(KIND, call.region, call.params["TrainingJobName"])
    if isinstance(job, TrainingJob):
        metrics = job.scraper.final()
        if metrics:
            document["FinalMetricDataList"] = metrics
    return document


@operation("ListTrainingJobs")
def list_training_jobs(call: Call) -> Document:
    """Filter by name, time, status and warm pool."""
    equal: dict[str, Any] = {}
    if "WarmPoolStatusEquals" in call.params:
        warm_pools.expire(call.context, call.region)
        equal["WarmPoolStatus.Status"] = call.params["WarmPoolStatusEquals"]
    return summaries(call, list_query(call, KIND, equal=equal), "TrainingJobSummaries")


@operation("StopTrainingJob")
def stop_training_job(call: Call) -> None:
    """Send SIGTERM now and SIGKILL after 120 s; artifacts are kept."""
    RECORDS.require_running(RECORDS.of(call))
    stop(call.context, call.region, call.params["TrainingJobName"])


def stop(context: Context, region: str, name: str) -> None:
    """Mark a job as Stopping and notify it; a job that has just ended keeps its end."""

    def change(document: Document) -> None:
        if document["TrainingJobStatus"] == "InProgress":
            document["TrainingJobStatus"] = "Stopping"
            transition(document, "Stopping", "Stopping the training job")

    context.store.update(KIND, region, name, change)
    context.part(Jobs).tell_to_stop(
        context, KIND, region, name, lambda document: note_end(context, region, document, "Stopped")
    )


@operation("UpdateTrainingJob")
def update_training_job(call: Call) -> Document:
    """Change KeepAlivePeriodInSeconds, profiler and remote debugger, as AWS allows for a running job."""
    resource = RECORDS.of(call)
    if resource.status != "InProgress" and "ResourceConfig" not in call.params:
        raise RECORDS.refused(resource.status)

    def change(document: Document) -> None:
        for member in ("ProfilerConfig", "ProfilerRuleConfigurations", "RemoteDebugConfig"):
            if member in call.params:
                document[member] = call.params[member]
        document["ResourceConfig"].update(call.params.get("ResourceConfig", {}))

    call.context.store.update(KIND, call.region, resource.name, change)
    return RECORDS.answer(resource)


RECORDS.deletes(RECORDS.require_ended)
