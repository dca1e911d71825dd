"""Ask a person: may a registered model serve, shall a changed endpoint get a new one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Required, Unpack

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import AwsAccess, Client
from ml_pipeline.deployment import choice, status
from ml_pipeline.operators.aws import TaskOptions
from ml_pipeline.registry import packages as registry
from ml_pipeline.registry.approval import Approval, description, question
from ml_pipeline.requests.types import Approved, Templated
from ml_pipeline.settings import Settings
from ml_pipeline.triggers.base import Event

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import BaseNotifier, Context
    from airflow.sdk.execution_time.hitl import HITLUser

COMMENT = Param(
    None,
    type=["string", "null"],
    maxLength=500,
    title="Comment",
    description_md="Kept with the decision in the model registry.",
)


class ApprovalOptions(TaskOptions, total=False):
    """The arguments of Airflow's ApprovalOperator, for its subclasses."""

    subject: Required[str]
    body: str
    defaults: str | list[str]
    assigned_users: HITLUser | list[HITLUser]
    notifiers: BaseNotifier | Sequence[BaseNotifier]
    response_timeout: timedelta
    fail_on_reject: bool
    ignore_downstream_trigger_rules: bool


class ApproveModelOperator(ApprovalOperator):
    """Wait for a person and write the decision into the registry; a rejection skips the deployment.

    The task waits in the state `awaiting_input`, at no cost. With approval="auto" it returns at once: the package is
    approved already.

    Args:
        approval: A value of `Approval`.
        package: Result of register.
        planned, evaluation, gate: Results of plan, evaluate and gate, of which the question is made.
    """

    template_fields = ("subject", "body", "approval", "package", "planned", "evaluation", "gate")

    def __init__(
        self,
        *,
        approval: Templated,
        package: Templated,
        planned: Templated,
        evaluation: Templated,
        gate: Templated,
        **kwargs: Unpack[ApprovalOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.approval = approval
        self.package = package
        self.planned = planned
        self.evaluation = evaluation
        self.gate = gate

    def execute(self, context: Context) -> Approved:
        """Ask a person, if the approval is theirs."""
        if Approval(self.approval) is Approval.AUTO:
            return {"approved": True, "by": "gate"}
        self.body = self._question(context)
        result: Approved = super().execute(context)
        return result

    def _question(self, context: Context) -> str:
        access = AwsAccess(Settings.load().aws_conn_id)
        s3, sagemaker = access.client("s3"), access.client("sagemaker")
        package = registry.describe(sagemaker, self.package["model_package_arn"])
        known = registry.packages(sagemaker, package.metadata["dataset_name"])
        planned, evaluation = self.planned or {}, self.evaluation
        live = status.describe(sagemaker, planned.get("endpoint_name") or package.metadata["dataset_name"])
        replaced = choice.serving(sagemaker, known, live)
        folder = evaluation["evaluation_uri"].rpartition("/")[0]
        champion = (
            objects.read_json(s3, f"{folder}/champion/evaluation.json") if evaluation["champion"] else None
        )
        return question(
            planned,
            choice.version_of(package),
            choice.version_of(replaced) if replaced else None,
            objects.read_json(s3, evaluation["evaluation_uri"]),
            champion,
            self.gate["reason"],
            evaluation["report_url"],
            getattr(context["dag_run"], "triggering_user_name", None),
        )

    def execute_complete(self, context: Context, event: Event) -> Approved:
        """Write the decision into the registry, then proceed or skip."""
        if "error" in event:
            super().execute_complete(context, event)  # raises
        approved = event["chosen_options"][0] == self.APPROVE
        user = (event.get("responded_by_user") or {}).get("name") or "the default"
        comment = str((event.get("params_input") or {}).get("comment") or "")
        AwsAccess(Settings.load().aws_conn_id).client("sagemaker").update_model_package(
            ModelPackageArn=self.package["model_package_arn"],
            ModelApprovalStatus="Approved" if approved else "Rejected",
            ApprovalDescription=description(approved, user, comment),
        )
        # A rejection skips by raising, so the result is left behind first.
        result: Approved = {"approved": approved, "by": user}
        context["ti"].xcom_push(key="return_value", value=result)
        super().execute_complete(context, event)
        return result


class ApproveRetrainingOperator(ApprovalOperator):
    """Ask a person whether to train again; a rejection skips the training. With retrain="auto", no person is asked.

    Airflow 3.3 takes an answer that comes before its scheduler knows that the asking process has ended for the end of
    a killed task, and tries again. The answer is kept in S3, so that the next try acts on it. A cleared task asks anew.

    Args:
        retrain: "ask" or "auto".
        endpoint_name: The endpoint that the proposal is about.
    """

    template_fields = ("subject", "body", "retrain", "endpoint_name")

    def __init__(
        self, *, retrain: Templated, endpoint_name: Templated, **kwargs: Unpack[ApprovalOptions]
    ) -> None:
        super().__init__(**kwargs)
        self.retrain = retrain
        self.endpoint_name = endpoint_name

    def execute(self, context: Context) -> object:
        """Ask, unless training starts by itself or the answer is there."""
        if self.retrain == "auto":
            self.log.info("retrain=auto: nothing to ask")
            return None
        s3, uri = self._kept(context)
        if not objects.exists(s3, uri):
            return super().execute(context)
        answer = objects.read_json(s3, uri)
        self.log.info("answered in an earlier try: %s", answer["chosen_options"][0])
        return super().execute_complete(
            context, {**answer, "responded_at": datetime.fromisoformat(answer["responded_at"])}
        )

    def execute_complete(self, context: Context, event: Event) -> object:
        """Keep the answer, then proceed or skip."""
        if "error" not in event:
            s3, uri = self._kept(context)
            objects.write_json(s3, uri, {**event, "responded_at": event["responded_at"].isoformat()})
        return super().execute_complete(context, event)

    def _kept(self, context: Context) -> tuple[Client, str]:
        settings, ti = Settings.load(), context["ti"]
        # Clearing raises max_tries, retrying does not.
        uri = settings.s3(f"watch/{self.endpoint_name}/answers/{ti.run_id}/{ti.max_tries}.json")
        return AwsAccess(settings.aws_conn_id).client("s3"), uri
