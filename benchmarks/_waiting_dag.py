"""DAGs of the benchmark `waiting`, which copies this file: one paid job each, waited for in two ways."""

from __future__ import annotations

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerProcessingOperator
from airflow.sdk import DAG

from ml_pipeline.aws import images
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.operators.job import Request, SageMakerJobOperator
from ml_pipeline.requests.types import Document, Tags
from ml_pipeline.settings import Settings


def processing_job(name: str, tags: Tags = ()) -> Document:
    """A job that needs every core, so that it stays Pending while another holds one."""
    settings = Settings.load()
    return {
        "ProcessingJobName": name,
        "RoleArn": settings.role_arn,
        "AppSpecification": {
            "ImageUri": images.training_image(settings, "ml.m5.xlarge"),
            "ContainerEntrypoint": ["true"],
        },
        "ProcessingResources": {
            "ClusterConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
        "Tags": list(tags),
    }


class ProcessingOperator(SageMakerJobOperator[dict[str, str]]):
    """The operator of every paid job of the project, around that job."""

    kind = JobKind.PROCESSING
    slug = "wait"

    def request(self, settings: Settings) -> Request:
        return processing_job

    def result(self, settings: Settings, description: Document) -> dict[str, str]:
        return {"job": description["ProcessingJobName"]}


with DAG("waiting", schedule=None, max_active_runs=1000):
    ProcessingOperator(task_id="wait")

with DAG("stock_waiting", schedule=None, max_active_runs=1000):
    SageMakerProcessingOperator(
        task_id="wait",
        # Its own names are a time in seconds: of runs that start together all but one fail.
        config=processing_job("stock-{{ ti.id }}"),
        wait_for_completion=True,
        check_interval=1,
    )
