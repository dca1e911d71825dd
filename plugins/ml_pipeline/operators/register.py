"""Register a model with its evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from ml_pipeline.aws import images
from ml_pipeline.operators.aws import AwsOperator, AwsOptions
from ml_pipeline.operators.links import LINK_KEY, SageMakerLink, thing
from ml_pipeline.registry import packages as registry
from ml_pipeline.registry.approval import Approval
from ml_pipeline.requests.types import Registered, Templated
from ml_pipeline.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class RegisterModelOperator(AwsOperator):
    """Create a model package, or find the one that an earlier try created.

    Args:
        group: Model package group.
        dataset: Result of upload.
        evaluation: Result of evaluate.
        instance_type: Instance type that the model may serve on.
        approval: "human" leaves the package pending until the approve task.
    """

    operator_extra_links = (SageMakerLink(),)
    template_fields = ("group", "dataset", "evaluation", "instance_type", "approval")

    def __init__(
        self,
        *,
        group: Templated,
        dataset: Templated,
        evaluation: Templated,
        instance_type: Templated = "ml.m5.large",
        approval: Templated = Approval.AUTO.value,
        **kwargs: Unpack[AwsOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.group = group
        self.dataset = dataset
        self.evaluation = evaluation
        self.instance_type = instance_type
        self.approval = approval

    def execute(self, context: Context) -> Registered:
        """Create or find the package."""
        settings, client = Settings.load(), self.client("sagemaker")
        registry.ensure_group(client, self.group, f"Classifiers of the data set {self.dataset['name']}")
        found = registry.find(client, self.group, self.evaluation["model_uri"])
        if found:
            arn, status = found.arn, found.status
        else:
            request = registry.model_package(
                group=self.group,
                model_uri=self.evaluation["model_uri"],
                image=images.serving_image(settings, self.instance_type),
                instance_type=self.instance_type,
                evaluation_uri=self.evaluation["evaluation_uri"],
                metadata={
                    "dataset_name": self.dataset["name"],
                    "dataset_version": self.dataset["version"],
                    "evaluation_uri": self.evaluation["evaluation_uri"],
                    "predictions_uri": self.evaluation["predictions_uri"],
                    "accuracy": f"{self.evaluation['accuracy']:.6f}",
                    "dag_id": context["ti"].dag_id,
                    "run_id": context["ti"].run_id,
                    **registry.object_version(self.client("s3"), self.evaluation["model_uri"]),
                },
                approved=Approval(self.approval) is Approval.AUTO,
            )
            arn = client.create_model_package(**request)["ModelPackageArn"]
            status = request["ModelApprovalStatus"]
        context["ti"].xcom_push(
            key=LINK_KEY, value=thing(settings, self.group, "model-package", "model-packages")
        )
        return {"model_package_arn": arn, "status": status}
