"""Bring a registered model into service, and tell the truth about how that went."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk.exceptions import TaskDeferred

from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.deployment import locks, rollback, scaling
from ml_pipeline.deployment.locks import Holder
from ml_pipeline.deployment.status import ABSENT, UNSETTLED
from ml_pipeline.errors import DeploymentRolledBack, JobInterrupted, may_pass, will_retry
from ml_pipeline.operators.aws import AwsOperator, origin_of
from ml_pipeline.operators.links import LINK_KEY, LogLink, SageMakerLink, thing
from ml_pipeline.registry import packages as registry
from ml_pipeline.requests import endpoint, names
from ml_pipeline.requests.endpoint import Serving
from ml_pipeline.settings import Settings
from ml_pipeline.triggers.endpoint import EndpointTrigger
from ml_pipeline.triggers.lock import LockTrigger
from ml_pipeline.triggers.ownership import run_is_over

# Metadata of a package: the endpoint config that served before it.
_REPLACED = "replaced_config"


class DeployEndpointOperator(AwsOperator):
    """Create the endpoint, or update it blue/green, and wait deferred until the new model serves.

    A rollback is a failure: after the rollout the live config must be the one asked for. The model package is
    rejected then, and approved again if a later try of this task brings it into service.

    Returns `{"endpoint_name", "endpoint_config_name", "previous_config_name", "model_package_arn"}`.

    :param endpoint_name: the endpoint.
    :param package: what the register task returned.
    :param instance_type, instance_count: machines that serve.
    :param max_count: above instance_count, the endpoint scales up to this with its load.
    :param canary_percent, bake_seconds: see `requests.endpoint.Serving`.
    :param wait_timeout: longest wait for a rollout; by itself it takes up to three hours, an hour of them watched.
    """

    operator_extra_links = (SageMakerLink(), LogLink())
    template_fields = (
        "endpoint_name",
        "package",
        "instance_type",
        "instance_count",
        "max_count",
        "canary_percent",
        "bake_seconds",
    )

    def __init__(
        self,
        *,
        endpoint_name: Any,
        package: Any,
        instance_type: Any = "ml.m5.large",
        instance_count: Any = 1,
        max_count: Any = 1,
        canary_percent: Any = 25,
        bake_seconds: Any = None,
        wait_timeout: timedelta = timedelta(hours=4),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint_name = endpoint_name
        self.package = package
        self.instance_type = instance_type
        self.instance_count = instance_count
        self.max_count = max_count
        self.canary_percent = canary_percent
        self.bake_seconds = bake_seconds
        self.wait_timeout = wait_timeout

    def execute(self, context: Any) -> dict[str, Any]:
        """Start the rollout, or join the one that an earlier try started."""
        settings = Settings.load()
        self._lock(context, settings)
        serving = self._serving(settings)
        tags = names.tags(origin_of(context), **{endpoint.ENDPOINT_TAG: self.endpoint_name})
        self._ensure_parts(serving, tags)
        self._announce(context, settings)
        live = self._describe()
        step = next_step(serving, live)
        if step in ("done", "resize") and not serving.scales and self._end_scaling():
            step = "wait"  # for a change that the load may have begun: from here on the count is ours
        self.log.info("endpoint %s is %s: %s", self.endpoint_name, live["EndpointStatus"], step)
        if step == "done":
            return self._in_service(serving)
        then = {"delete": "again", "wait": "again", "resize": "resized"}.get(step, "complete")
        if step == "delete":
            self.client("sagemaker").delete_endpoint(EndpointName=self.endpoint_name)
        elif step == "create":
            self.client("sagemaker").create_endpoint(**endpoint.create_endpoint(serving, tags))
        elif step == "update":
            self._update(serving, live)
        elif step == "resize":
            self.client("sagemaker").update_endpoint_weights_and_capacities(**endpoint.resize(serving))
        trigger = EndpointTrigger(self.endpoint_name, settings.poll_seconds, self.access.to_dict())
        raise TaskDeferred(trigger=trigger, method_name=then, timeout=self.wait_timeout)

    def _update(self, serving: Serving, live: dict[str, Any]) -> None:
        sagemaker = self.client("sagemaker")
        replaced = {_REPLACED: live["EndpointConfigName"]}
        registry.note(sagemaker, self.package["model_package_arn"], **replaced)
        for alarm in endpoint.alarms(serving):
            self.client("cloudwatch").put_metric_alarm(**alarm)
        instances = live["ProductionVariants"][0]["DesiredInstanceCount"]
        sagemaker.update_endpoint(**endpoint.update_endpoint(serving, instances))

    def _end_scaling(self) -> bool:
        """Not before the new model serves: an update that is rolled back leaves the endpoint scaling as it did."""
        return scaling.remove(self.client("application-autoscaling"), self.endpoint_name)

    def _lock(self, context: Any, settings: Settings) -> None:
        """Take the endpoint's lock, or defer until it is worth another try. `stop_leftovers` gives it
        back.
        """
        lock_uri = locks.uri(settings.bucket, self.endpoint_name)
        me = Holder(context["ti"].dag_id, context["ti"].run_id)
        holder = locks.acquire(
            self.client("s3"), lock_uri, me, lambda other: run_is_over(other.dag_id, other.run_id)
        )
        if holder is None:
            return
        self.log.info("endpoint %s is being deployed by %s: waiting", self.endpoint_name, holder)
        trigger = LockTrigger(lock_uri, settings.poll_seconds, self.access.to_dict())
        raise TaskDeferred(trigger=trigger, method_name="again", timeout=self.wait_timeout)

    def again(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """What was in the way is over: start anew."""
        return self.execute(context)

    def complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """The rollout is over: fail unless the endpoint serves the config that was asked for."""
        serving = self._serving(Settings.load())
        if event["status"] == "InService" and event["config"] == serving.config_name:
            # Done, or not yet: the load decided on the number of instances until now, and is to do so no more.
            return self.again(context, event)
        alarms = self.client("cloudwatch").describe_alarms(AlarmNames=serving.alarm_names)
        rang = [alarm for alarm in alarms["MetricAlarms"] if alarm["StateValue"] == "ALARM"]
        reason = rollback_reason(serving, event, rang)
        no_fault = not rang and may_pass(event["reason"])
        error = JobInterrupted(reason) if no_fault else DeploymentRolledBack(reason)
        if not will_retry(error, context["ti"]):
            # The champion is the newest approved package: one that does not serve must not be it.
            registry.reject(self.client("sagemaker"), self.package["model_package_arn"], reason)
        if event["config"] != serving.config_name:
            rollback.retire(self.client("sagemaker"), serving.config_name)
        raise error

    def resized(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """There are as many instances as SageMaker had; with fewer than asked for, the model serves all the same."""
        if event["status"] != "InService":
            return self.complete(context, event)
        if event["reason"]:
            self.log.warning("endpoint %s: %s", self.endpoint_name, event["reason"])
        return self._in_service(self._serving(Settings.load()))

    def _serving(self, settings: Settings) -> Serving:
        package = registry.describe(self.client("sagemaker"), self.package["model_package_arn"])
        return Serving(
            endpoint_name=self.endpoint_name,
            model_uri=package.model_uri,
            image=package.image,
            role_arn=settings.role_arn,
            network=settings.network,
            instance_type=self.instance_type,
            instance_count=int(self.instance_count),
            max_count=int(self.max_count),
            canary_percent=int(self.canary_percent),
            bake_seconds=settings.bake_seconds if self.bake_seconds is None else int(self.bake_seconds),
        )

    def _ensure_parts(self, serving: Serving, tags: list[dict[str, str]]) -> None:
        client = self.client("sagemaker")
        _ensure(
            lambda: client.describe_model(ModelName=serving.model_name),
            lambda: client.create_model(**endpoint.model(serving, tags)),
        )
        _ensure(
            lambda: client.describe_endpoint_config(EndpointConfigName=serving.config_name),
            lambda: client.create_endpoint_config(**endpoint.endpoint_config(serving, tags)),
        )

    def _describe(self) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        try:
            response: dict[str, Any] = self.client("sagemaker").describe_endpoint(
                EndpointName=self.endpoint_name
            )
        except ClientError as error:
            if is_missing(error):
                return {"EndpointStatus": ABSENT}
            raise
        return response

    def _in_service(self, serving: Serving) -> dict[str, Any]:
        registry.reinstate(self.client("sagemaker"), self.package["model_package_arn"])
        if serving.scales:
            scaling.scale(self.client("application-autoscaling"), serving)
        return {
            "endpoint_name": serving.endpoint_name,
            "endpoint_config_name": serving.config_name,
            "previous_config_name": self._previous(),
            "model_package_arn": self.package["model_package_arn"],
        }

    def _previous(self) -> str | None:
        """The config that this deployment replaced. Kept in the registry, because a retry has lost its XComs."""
        package = registry.describe(self.client("sagemaker"), self.package["model_package_arn"])
        return package.metadata.get(_REPLACED)

    def _announce(self, context: Any, settings: Settings) -> None:
        log_group = f"/aws/sagemaker/Endpoints/{self.endpoint_name}"
        context["ti"].xcom_push(
            key=LINK_KEY, value=thing(settings, self.endpoint_name, "endpoint", "endpoints", log_group)
        )


def next_step(serving: Serving, live: dict[str, Any]) -> str:
    """What to do about an endpoint in its present state: create, update, resize, delete, join, wait or done.

    "resize": this very config serves, on another number of instances than asked for. "join": this very config is
    on its way already. "wait": another rollout is; let it end first. "delete": the endpoint never came up, and
    UpdateEndpoint takes only one that is InService.
    """
    status = live["EndpointStatus"]
    if status == ABSENT:
        return "create"
    if status in UNSETTLED:
        pending = live.get("PendingDeploymentSummary", {}).get("EndpointConfigName")
        ours = (pending or live.get("EndpointConfigName")) == serving.config_name
        return "join" if ours and status in ("Creating", "Updating") else "wait"
    if status in ("Failed", "OutOfService"):
        return "delete"
    if status == "InService" and live["EndpointConfigName"] == serving.config_name:
        return "done" if serving.scales or _instances(live, serving) == serving.instance_count else "resize"
    return "update"


def _instances(live: dict[str, Any], serving: Serving) -> int:
    variants = live.get("ProductionVariants") or [{}]
    count: int = variants[0].get("DesiredInstanceCount", serving.instance_count)
    return count


def rollback_reason(serving: Serving, event: dict[str, Any], alarms: list[dict[str, Any]]) -> str:
    """Why a deployment failed, in one line: SageMaker often leaves FailureReason empty after a rollback."""
    rang = "; ".join(f"alarm {alarm['AlarmName']}: {alarm.get('StateReason', '')}" for alarm in alarms)
    return (
        f"endpoint {serving.endpoint_name} is {event['status']} with config {event['config'] or 'none'} "
        f"instead of {serving.config_name}; {rang or event['reason'] or 'no alarm is on and SageMaker gave no reason'}"
    )


def _ensure(describe: Any, create: Any) -> None:
    from botocore.exceptions import ClientError

    try:
        describe()
    except ClientError as error:
        if not is_missing(error):
            raise
        create()
