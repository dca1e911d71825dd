"""Transform jobs: the operations and the checks beyond the service model."""

from __future__ import annotations

from local_aws.errors import validation_error
from local_aws.gateway.json_service import Call, Document
from local_aws.sagemaker import models
from local_aws.sagemaker.jobs import quotas
from local_aws.sagemaker.jobs.job import Jobs
from local_aws.sagemaker.operations import operation
from local_aws.sagemaker.records import Records
from local_aws.sagemaker.s3_data import check_input, check_output
from local_aws.sagemaker.transform.batches import BatchPlan
from local_aws.sagemaker.transform.job import KIND, TransformJob

RECORDS = Records(
    KIND,
    "TransformJob",
    missing="Could not find requested job with name: {name}",
    exists="Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})",
    exists_code="ResourceInUse",
)


@operation("CreateTransformJob")
def create_transform_job(call: Call) -> Document:
    """Check the request, store the record, start the job."""
    params = call.params
    containers = _containers(call, params["ModelName"])
    _check(call, containers[0][models.ROLE])
    quotas.check(call.context, call.region, KIND, params, _instances)
    resource = RECORDS.create_from(call, TransformJobStatus="InProgress")
    call.context.part(Jobs).begin(TransformJob(call.context, resource, containers))
    return RECORDS.answer(resource)


def _containers(call: Call, name: str) -> list[Document]:
    """Return the model's containers.

    Raises:
        AwsError: ValidationException for a model that a transform job cannot run.
    """
    containers = models.containers_of(call, name)
    if any(container.get("ModelDataSource") for container in containers):
        raise validation_error("ModelDataSource is not supported by batch transform: give ModelDataUrl.")
    return containers


def _check(call: Call, role: str) -> None:
    params = call.params
    source = params["TransformInput"]["DataSource"].get("S3DataSource")
    if source is None:
        raise validation_error("local_aws reads transform input from S3 only: give S3DataSource.")
    check_input(call.context, call.region, role, source["S3Uri"])
    check_output(params["TransformOutput"]["S3OutputPath"])
    BatchPlan.of(params)


def _instances(document: Document) -> list[tuple[str, int]]:
    resources = document["TransformResources"]
    return [(resources["InstanceType"], resources["InstanceCount"])]


RECORDS.describes_and_lists("TransformJobSummaries")


@operation("StopTransformJob")
def stop_transform_job(call: Call) -> None:
    """Stop after the requests in flight."""
    call.context.part(Jobs).stop(call.context, RECORDS.of(call), RECORDS)
