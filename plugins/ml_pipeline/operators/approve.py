"""Approve a registered model: by the gate alone, or by a person with the report at hand."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.registry.approval import Approval
from ml_pipeline.settings import Settings


class ApproveModelOperator(ApprovalOperator):
    """With approval="human", wait for a person (the task parks in `awaiting_input`, at no cost) and write the
    decision into the registry; a rejection skips the deployment. With "auto", the package is approved
    already.

    Returns `{"approved", "by"}`.

    :param approval: a value of `Approval`.
    :param package: what the register task returned.
    """

    template_fields = ("subject", "body", "approval", "package")

    def __init__(self, *, approval: Any, package: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.approval = approval
        self.package = package

    def execute(self, context: Any) -> dict[str, Any]:
        """Ask, unless nobody is to be asked."""
        if Approval(self.approval) is Approval.AUTO:
            return {"approved": True, "by": "gate"}
        result: dict[str, Any] = super().execute(context)
        return result

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Write the decision into the registry, then proceed or skip."""
        if "error" not in event:
            approved = event["chosen_options"][0] == self.APPROVE
            user = (event.get("responded_by_user") or {}).get("name") or "nobody, by default"
            AwsAccess(Settings.load().aws_conn_id).client("sagemaker").update_model_package(
                ModelPackageArn=self.package["model_package_arn"],
                ModelApprovalStatus="Approved" if approved else "Rejected",
                ApprovalDescription=f"{'approved' if approved else 'rejected'} in Airflow by {user}",
            )
            # A rejection skips by raising, so the result is left behind first.
            context["ti"].xcom_push(key="return_value", value={"approved": approved, "by": user})
        super().execute_complete(context, event)
        return {"approved": True, "by": user}
