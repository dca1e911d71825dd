"""Processing jobs: the operations and the checks beyond the service model."""

from __future__ import annotations

from local_aws.context import Context
from local_aws.errors import validation_error
from local_aws.execution.images import Contract, Image
from local_aws.gateway.json_service import Call, Document
from local_aws.sagemaker.jobs import quotas
from local_aws.sagemaker.jobs.job import Jobs
from local_aws.sagemaker.operations import operation
from local_aws.sagemaker.processing.job import DEFAULT_RUNTIME_SECONDS, KIND, ROOT, ProcessingJob
from local_aws.sagemaker.records import Records
from local_aws.sagemaker.s3_data import check_output

RECORDS = Records(
    KIND,
    "ProcessingJob",
    missing="Could not find requested job with name: {name}",
    exists="Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})",
    exists_code="ResourceInUse",
)


@operation("CreateProcessingJob")
def create_processing_job(call: Call) -> Document:
    """Check the request, store the record, start the job."""
    params = call.params
    image = check_request(call.context, params)
    quotas.check(call.context, call.region, KIND, params, _instances)
    stopping = params.get("StoppingCondition", {"MaxRuntimeInSeconds": DEFAULT_RUNTIME_SECONDS})
    resource = RECORDS.create_from(call, ProcessingJobStatus="InProgress", StoppingCondition=stopping)
    call.context.part(Jobs).begin(ProcessingJob(call.context, resource, image))
    return RECORDS.answer(resource)


def check_request(context: Context, params: Document) -> Image:
    """Check what the service model cannot express.

    Returns:
        The image that runs the job.

    Raises:
        AwsError: ValidationException.
    """
    for entry in params.get("ProcessingInputs", []):
        _check_input(entry)
    for output in params.get("ProcessingOutputConfig", {}).get("Outputs", []):
        if not output.get("AppManaged"):
            where = f"output {output['OutputName']}"
            if "S3Output" not in output:
                raise validation_error(f"local_aws writes outputs to S3 only: give S3Output for {where}.")
            check_output(output["S3Output"]["S3Uri"])
            _check_local(output["S3Output"].get("LocalPath"), where)
    names = [entry["InputName"] for entry in params.get("ProcessingInputs", [])]
    if len(set(names)) != len(names):
        raise validation_error("Input names must be unique within a processing job.")
    return find_image(context, params["AppSpecification"])


def find_image(context: Context, specification: Document) -> Image:
    """Return the entry of the images file that runs an AppSpecification.

    Raises:
        AwsError: ValidationException for an unknown image.
    """
    image = context.images.require(specification["ImageUri"], Contract.PROCESSING)
    if not specification.get("ContainerEntrypoint") and (
        not image.argv or Contract.SERVER in image.contracts
    ):
        raise validation_error(
            "local_aws knows no entrypoint of the image: give AppSpecification.ContainerEntrypoint."
        )
    return image


def _check_input(entry: Document) -> None:
    where = f"input {entry['InputName']}"
    if entry.get("AppManaged"):
        return
    source = entry.get("S3Input")
    if source is None:
        raise validation_error(f"local_aws reads inputs from S3 only: give S3Input for {where}.")
    check_output(source["S3Uri"])
    _check_local(source.get("LocalPath"), where)
    if source.get("S3InputMode") == "Pipe":
        raise validation_error(f"Pipe input mode is not supported by local_aws: use File for {where}.")
    if source.get("S3CompressionType", "None") != "None":
        raise validation_error(f"S3CompressionType of {where} is for Pipe input mode only.")


def _check_local(path: str | None, where: str) -> None:
    if path is None or not path.startswith(ROOT) or ".." in path.split("/"):
        raise validation_error(f"LocalPath of {where} must be an absolute path under {ROOT}.")


def _instances(document: Document) -> list[tuple[str, int]]:
    cluster = document["ProcessingResources"]["ClusterConfig"]
    return [(cluster["InstanceType"], cluster["InstanceCount"])]


RECORDS.describes_and_lists("ProcessingJobSummaries")
RECORDS.deletes(RECORDS.require_ended)


@operation("StopProcessingJob")
def stop_processing_job(call: Call) -> None:
    """Send SIGTERM now and SIGKILL after 120 s."""
    call.context.part(Jobs).stop(call.context, RECORDS.of(call), RECORDS)
