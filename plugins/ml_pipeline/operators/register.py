"""Register the model with its evaluation."""

from __future__ import annotations

from typing import Any

from ml_pipeline.aws import images
from ml_pipeline.operators.aws import AwsOperator
from ml_pipeline.operators.links import LINK_KEY, SageMakerLink, thing
from ml_pipeline.registry import packages as registry
from ml_pipeline.registry.approval import Approval
from ml_pipeline.settings import Settings


class RegisterModelOperator(AwsOperator):
    """Create a model package, or find the one that an earlier try created.

    Returns `{"model_package_arn", "status"}`.

    :param group: model package group.
    :param dataset: what the upload task returned.
    :param evaluation: what the evaluate task returned.
    :param instance_type: where the model may serve.
    :param approval: "human" leaves the package pending until the approve task.
    """

    operator_extra_links = (SageMakerLink(),)
    template_fields = ("group", "dataset", "evaluation", "instance_type", "approval")

    def __init__(
        self,
        *,
        group: Any,
        dataset: Any,
        evaluation: Any,
        instance_type: Any = "ml.m5.large",
        approval: Any = Approval.AUTO.value,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.group = group
        self.dataset = dataset
        self.evaluation = evaluation
        self.instance_type = instance_type
        self.approval = approval

    def execute(self, context: Any) -> dict[str, Any]:
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
                },
                approved=Approval(self.approval) is Approval.AUTO,
            )
            arn = client.create_model_package(**request)["ModelPackageArn"]
            status = request["ModelApprovalStatus"]
        context["ti"].xcom_push(
            key=LINK_KEY, value=thing(settings, self.group, "model-package", "model-packages")
        )
        return {"model_package_arn": arn, "status": status}
