"""Bring a registered model into service, and report truthfully how that went."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Unpack

from ml_pipeline.aws.jobs import ensure
from ml_pipeline.deployment import locks, rollback, scaling, status, takeover
from ml_pipeline.deployment.locks import Holder
from ml_pipeline.deployment.status import Step
from ml_pipeline.errors import DeploymentRolledBack, JobInterrupted, may_pass, will_retry
from ml_pipeline.operators.aws import AwsOperator, AwsOptions, origin_of
from ml_pipeline.operators.links import LINK_KEY, LogLink, SageMakerLink, thing
from ml_pipeline.registry import packages as registry
from ml_pipeline.requests import endpoint, names
from ml_pipeline.requests.endpoint import Serving
from ml_pipeline.requests.types import Deployed, Document, Tags, Templated
from ml_pipeline.settings import Settings
from ml_pipeline.triggers.base import Event
from ml_pipeline.triggers.endpoint import EndpointTrigger
from ml_pipeline.triggers.lock import LockTrigger
from ml_pipeline.triggers.ownership import run_is_over

if TYPE_CHECKING:
    from airflow.sdk import Context

# Metadata of a package: the endpoint config that served before it.
_REPLACED = "replaced_config"
# The method that continues after a wait.
_THEN = {Step.DELETE: "again", Step.WAIT: "again", Step.RESIZE: "resized"}


class DeployEndpointOperator(AwsOperator):
    """Create the endpoint, or update it blue/green, and wait deferred until the new model serves.

    A rollback is a failure: after the rollout the live config must be the one asked for. The model package is
    rejected then, and approved again if a later try of this task brings it into service.

    Args:
        endpoint_name: The endpoint; empty: the data set's.
        package: Result of register.
        replace_endpoint: Take over an endpoint that serves another data set.
        instance_type, instance_count: Instances that serve.
        max_count: Above instance_count, the endpoint scales up to this with its load.
        canary_percent, bake_seconds: See `requests.endpoint.Serving`.
        capture_percent, capture_days: Share of requests that is kept, and for how long; None or 0: nothing is.
        wait_timeout: Longest wait for a rollout; by itself it takes up to three hours, an hour of them watched.
    """

    operator_extra_links = (SageMakerLink(), LogLink())
    template_fields = (
        "endpoint_name",
        "package",
        "replace_endpoint",
        "instance_type",
        "instance_count",
        "max_count",
        "canary_percent",
        "bake_seconds",
        "capture_percent",
        "capture_days",
    )

    def __init__(
        self,
        *,
        endpoint_name: Templated,
        package: Templated,
        replace_endpoint: Templated = False,
        instance_type: Templated = "ml.m5.large",
        instance_count: Templated = 1,
        max_count: Templated = 1,
        canary_percent: Templated = 25,
        bake_seconds: Templated = None,
        capture_percent: Templated = 100,
        capture_days: Templated = None,
        wait_timeout: timedelta = timedelta(hours=4),
        **kwargs: Unpack[AwsOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint_name = endpoint_name
        self.package = package
        self.replace_endpoint = replace_endpoint
        self.instance_type = instance_type
        self.instance_count = instance_count
        self.max_count = max_count
        self.canary_percent = canary_percent
        self.bake_seconds = bake_seconds
        self.capture_percent = capture_percent
        self.capture_days = capture_days
        self.wait_timeout = wait_timeout

    def execute(self, context: Context) -> Deployed:
        """Start the rollout, or join the one that an earlier try started."""
        settings = Settings.load()
        if not self.endpoint_name:
            self.endpoint_name = self._default_endpoint()
        self._lock(context, settings)
        package = registry.describe(self.client("sagemaker"), self.package["model_package_arn"])
        registry.refuse_overwritten(self.client("s3"), package)
        serving = self._serving(settings, package)
        live = status.describe(self.client("sagemaker"), self.endpoint_name)
        self._refuse_takeover(live, package)
        tags = names.tags(
            origin_of(context),
            **{
                endpoint.ENDPOINT_TAG: self.endpoint_name,
                endpoint.DATASET_TAG: package.metadata.get("dataset_name", ""),
                endpoint.VERSION_TAG: package.metadata.get("dataset_version", ""),
            },
        )
        self._ensure_parts(serving, tags)
        self._announce(context, settings)
        step = status.next_step(serving, live)
        if step in (Step.DONE, Step.RESIZE) and not serving.scales and self._end_scaling():
            step = Step.WAIT  # for a change that the load may have begun: from here on the count is ours
        self.log.info("endpoint %s is %s: %s", self.endpoint_name, live["EndpointStatus"], step.value)
        if step is Step.DONE:
            return self._in_service(serving)
        self._take(step, serving, live, tags)
        then = _THEN.get(step, "complete")
        raise self.deferred(
            context, EndpointTrigger, then, self.wait_timeout, endpoint_name=self.endpoint_name
        )

    def _default_endpoint(self) -> str:
        """Name the endpoint as `plan` does: a run that began before an upgrade has no name from there."""
        package = registry.describe(self.client("sagemaker"), self.package["model_package_arn"])
        dataset = package.metadata.get("dataset_name", "")
        return takeover.default_endpoint(self.client("sagemaker"), self.client("s3"), dataset)

    def _refuse_takeover(self, live: Document, package: registry.Package) -> None:
        """Look again under the lock: another run may have deployed since `plan` looked."""
        if live["EndpointStatus"] == status.ABSENT or self.replace_endpoint:
            return
        dataset = package.metadata.get("dataset_name", "")
        conflict = takeover.conflict_of(self.client("sagemaker"), self.client("s3"), live, dataset)
        if conflict:
            raise takeover.EndpointTaken(f"{conflict}: choose another endpoint_name, or set replace_endpoint")

    def _take(self, step: Step, serving: Serving, live: Document, tags: Tags) -> None:
        from botocore.exceptions import ClientError

        sagemaker = self.client("sagemaker")
        try:
            if step is Step.DELETE:
                sagemaker.delete_endpoint(EndpointName=self.endpoint_name)
            elif step is Step.CREATE:
                sagemaker.create_endpoint(**endpoint.create_endpoint(serving, tags))
            elif step is Step.UPDATE:
                self._update(serving, live)
            elif step is Step.RESIZE:
                sagemaker.update_endpoint_weights_and_capacities(**endpoint.resize(serving))
        except ClientError:
            # The call is refused if it is the second of its kind: the answer to the first was lost, and it works.
            now = status.describe(sagemaker, self.endpoint_name)
            begun = step in (Step.CREATE, Step.UPDATE) and status.next_step(serving, now) in (
                Step.JOIN,
                Step.DONE,
            )
            if not begun and not (step is not Step.CREATE and now["EndpointStatus"] in status.UNSETTLED):
                raise

    def _update(self, serving: Serving, live: Document) -> None:
        sagemaker = self.client("sagemaker")
        replaced = {_REPLACED: live["EndpointConfigName"]}
        registry.note(sagemaker, self.package["model_package_arn"], **replaced)
        for alarm in endpoint.alarms(serving):
            self.client("cloudwatch").put_metric_alarm(**alarm)
        instances = live["ProductionVariants"][0]["DesiredInstanceCount"]
        sagemaker.update_endpoint(**endpoint.update_endpoint(serving, instances))

    def _end_scaling(self) -> bool:
        """End scaling only when the new model serves: after a rollback the endpoint scales as it did."""
        return scaling.remove(self.client("application-autoscaling"), self.endpoint_name)

    def _lock(self, context: Context, settings: Settings) -> None:
        """Take the endpoint's lock, or defer until it is worth another try. `stop_leftovers` releases it."""
        lock_uri = locks.uri(settings.bucket, self.endpoint_name)
        me = Holder(context["ti"].dag_id, context["ti"].run_id)
        holder = locks.acquire(
            self.client("s3"), lock_uri, me, lambda other: run_is_over(other.dag_id, other.run_id)
        )
        if holder is None:
            return
        self.log.info("endpoint %s is being deployed by %s: waiting", self.endpoint_name, holder)
        raise self.deferred(context, LockTrigger, "again", self.wait_timeout, lock_uri=lock_uri)

    def again(self, context: Context, event: Event) -> Deployed:
        """Start anew: what was in the way is over."""
        return self.execute(context)

    def complete(self, context: Context, event: Event) -> Deployed:
        """Fail unless the endpoint serves, after the rollout, the config that was asked for."""
        serving = self._serving(Settings.load())
        if event["status"] == "InService" and event["config"] == serving.config_name:
            # Resize if needed: until now the load decided on the number of instances, and from now on it must not.
            return self.again(context, event)
        alarms = self.client("cloudwatch").describe_alarms(AlarmNames=serving.alarm_names)
        rang = [alarm for alarm in alarms["MetricAlarms"] if alarm["StateValue"] == "ALARM"]
        reason = status.rollback_reason(serving, event["status"], event["config"], event["reason"], rang)
        no_fault = not rang and may_pass(event["reason"])
        error = JobInterrupted(reason) if no_fault else DeploymentRolledBack(reason)
        if not will_retry(error, context["ti"]):
            # The champion is the newest approved package: one that does not serve must not be it.
            registry.reject(self.client("sagemaker"), self.package["model_package_arn"], reason)
        if event["config"] != serving.config_name:
            rollback.retire(self.client("sagemaker"), self.endpoint_name, serving.config_name)
        raise error

    def resized(self, context: Context, event: Event) -> Deployed:
        """Accept as many instances as SageMaker had: with fewer than requested, the model still serves."""
        if event["status"] != "InService":
            return self.complete(context, event)
        if event["reason"]:
            self.log.warning("endpoint %s: %s", self.endpoint_name, event["reason"])
        return self._in_service(self._serving(Settings.load()))

    def _serving(self, settings: Settings, package: registry.Package | None = None) -> Serving:
        package = package or registry.describe(self.client("sagemaker"), self.package["model_package_arn"])
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
            capture=endpoint.capture_of(
                settings.bucket, self.capture_percent, self.capture_days, settings.network.volume_key
            ),
        )

    def _ensure_parts(self, serving: Serving, tags: Tags) -> None:
        client = self.client("sagemaker")
        ensure(
            lambda: client.describe_model(ModelName=serving.model_name),
            lambda: client.create_model(**endpoint.model(serving, tags)),
        )
        ensure(
            lambda: client.describe_endpoint_config(EndpointConfigName=serving.config_name),
            lambda: client.create_endpoint_config(**endpoint.endpoint_config(serving, tags)),
        )

    def _in_service(self, serving: Serving) -> Deployed:
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
        """Return the config that this deployment replaced. The registry keeps it, because a retry loses its XComs."""
        package = registry.describe(self.client("sagemaker"), self.package["model_package_arn"])
        return package.metadata.get(_REPLACED)

    def _announce(self, context: Context, settings: Settings) -> None:
        log_group = f"/aws/sagemaker/Endpoints/{self.endpoint_name}"
        context["ti"].xcom_push(
            key=LINK_KEY, value=thing(settings, self.endpoint_name, "endpoint", "endpoints", log_group)
        )
