"""A running endpoint: its fleets, the routing of requests, and the thread that changes them."""

from __future__ import annotations

import contextlib
import logging
import random
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Set

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.context import Context
from local_aws.gateway.json_service import Document
from local_aws.sagemaker.endpoints.fleet import Fleet, Plan, folder_of
from local_aws.sagemaker.endpoints.rollout import Rollout
from local_aws.sagemaker.endpoints.rollout import plan as plan_rollout
from local_aws.sagemaker.endpoints.server import ServerFailed
from local_aws.sagemaker.endpoints.variant import Variant
from local_aws.sagemaker.jobs.job import cut
from local_aws.sagemaker.s3_data import DataError
from local_aws.state.beneath import remove_tree
from local_aws.state.resources import Missing, Resource

logger = logging.getLogger(__name__)

KIND = "endpoint"
ALARM_POLL_SECONDS = 0.5


class Cancelled(Exception):
    """The endpoint is being deleted, or local_aws is stopping."""


class RolledBack(Exception):
    """The new fleet is discarded; the text says why."""


class Endpoint:
    """The servers behind an endpoint's record; clients see the record."""

    def __init__(self, context: Context, region: str, name: str) -> None:
        self.context, self.region, self.name = context, region, name
        self._live: Fleet | None = None
        self._next: Fleet | None = None
        self._next_share = 0.0
        self._lock = threading.Lock()
        self._cancel = threading.Event()
        self._thread: threading.Thread | None = None

    # --- traffic ---

    def route(self, target: str | None) -> Variant:
        """Choose the variant for one request.

        Raises:
            AwsError: ValidationError for an unknown target.
            Cancelled: The endpoint is gone.
        """
        with self._lock:
            live, following, share = self._live, self._next, self._next_share
        fleet = following if following is not None and random.random() < share else live
        if fleet is None:
            raise Cancelled
        return fleet.choose(target)

    @property
    def fleets(self) -> list[Fleet]:
        """The fleets that take traffic: none before the endpoint is in service, two during an update."""
        with self._lock:
            return [fleet for fleet in (self._live, self._next) if fleet is not None]

    # --- changes, each in the endpoint's thread ---

    def create(self) -> None:
        """Start the fleet of a new endpoint."""
        self._begin(self._create)

    def update(self) -> None:
        """Replace the live fleet with the one planned in the document (`_Next`)."""
        self._begin(self._update)

    def rescale(self) -> None:
        """Apply the weights and counts of the document's plan."""
        self._begin(self._rescale)

    def recover(self, resource: Resource) -> None:
        """Continue after a restart of local_aws from the recorded status."""
        status = resource.status
        if status == "Deleting":
            self._begin(self._delete)
        elif status == "Creating":
            self.create()
        elif status != "Failed" or "ProductionVariants" in resource.document:  # it has been in service
            self._begin(self._resume)

    def delete(self) -> None:
        """Cancel the change in progress, end the servers, and delete the record."""
        self._cancel.set()
        before = self._thread

        def delete() -> None:
            if before is not None:
                before.join()
            self._delete()

        self._begin(delete)

    def stop(self) -> None:
        """Stop the servers because local_aws stops; the document stays as it is."""
        self._cancel.set()
        if self._thread is not None:
            self._thread.join(10)
        for fleet in self._take_fleets():
            fleet.stop()

    # --- inside ---

    def _begin(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(work,), name=f"endpoint {self.name}", daemon=True
        )
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (Cancelled, Missing):
            logger.info("endpoint %s: %s cancelled", self.name, work.__name__.strip("_"))
        except Exception as error:
            with contextlib.suppress(Cancelled, Missing):
                self._set(EndpointStatus="Failed", FailureReason=self._reason(error))

    def _reason(self, error: Exception) -> str:
        """Return the FailureReason of an error; log errors of local_aws itself."""
        if isinstance(error, DataError | ServerFailed | RolledBack):
            return cut(str(error))
        logger.error("endpoint %s failed inside local_aws", self.name, exc_info=error)
        return cut(f"local_aws failed: {error!r}; its log says more.")

    def _cancelled(self) -> bool:
        return self._cancel.is_set() or self.context.stopping.is_set()

    def _document(self) -> Document:
        return self.context.store.get(KIND, self.region, self.name).document

    def _set(self, **members: object) -> None:
        """Change members of the document; None removes one. Retries until the store accepts it.

        Raises:
            Cancelled: local_aws stops first.
        """
        change = _changing(members)
        if not self.context.store.insist(KIND, self.region, self.name, change, self.context.stopping):
            raise Cancelled

    def _create(self) -> None:
        fleet = Fleet(self.context, self.region, self.name, self._document()["_Live"])
        try:
            fleet.start(self._cancelled)
        except (DataError, ServerFailed) as error:
            fleet.remove()
            self._raise_if_cancelled()
            self._set(EndpointStatus="Failed", FailureReason=cut(str(error)))
            return
        with self._lock:
            self._live = fleet
        if self._cancelled():
            raise Cancelled
        self._set(EndpointStatus="InService", ProductionVariants=fleet.summary())

    def _resume(self) -> None:
        document = self._document()
        fleet = Fleet(self.context, self.region, self.name, document["_Live"])
        with self._lock:
            self._live = fleet
        status = document["EndpointStatus"]
        updating = status == "Updating" and "_Next" in document
        self._remove_folders(but={fleet.plan["id"], document["_Next"]["id"] if updating else ""})
        fleet.start(self._cancelled, wait=False)
        if updating:
            self._update()
        elif status != "InService":
            self._set(
                EndpointStatus="InService",
                ProductionVariants=fleet.summary(),
                FailureReason=None if status == "Failed" else document.get("FailureReason"),
                PendingDeploymentSummary=None,
                _Next=None,
                _Deployment=None,
            )

    def _rescale(self) -> None:
        fleet = self._live
        if fleet is None:
            raise Cancelled
        plan: Plan = self._document()["_Live"]
        fleet.plan = plan
        failure = None
        try:
            for name, variant in fleet.variants.items():
                variant.weight = plan.get("weights", {}).get(name, variant.weight)
                variant.scale(plan.get("counts", {}).get(name, variant.desired))
            for variant in fleet.variants.values():
                variant.wait_healthy(self._cancelled)
        except Exception as error:  # the existing servers survive any failure
            self._raise_if_cancelled()
            failure = self._reason(error)
        self._set(EndpointStatus="InService", ProductionVariants=fleet.summary(), FailureReason=failure)

    def _update(self) -> None:
        document = self._document()
        following = Fleet(self.context, self.region, self.name, document["_Next"])
        old = self._live
        with self._lock:
            self._next, self._next_share = following, 0.0
        try:
            rollout = plan_rollout(
                document.get("_Deployment"),
                old.count if old else 0,
                sum(v.desired for v in following.variants.values()),
            )
            self._shift(following, rollout)
        except (Cancelled, Missing):
            raise
        except Exception as error:  # the live fleet survives any failure
            self._raise_if_cancelled()
            self._roll_back(following, self._reason(error))
            return
        with self._lock:
            self._live, self._next = following, None
        self._set(
            EndpointStatus="InService",
            EndpointConfigName=following.config_name,
            ProductionVariants=following.summary(),
            DataCaptureConfig=_capture_summary(following.config),
            AsyncInferenceConfig=following.config.get("AsyncInferenceConfig"),
            LastDeploymentConfig=document.get("_Deployment"),
            FailureReason=None,
            PendingDeploymentSummary=None,
            _Live=following.plan,
            _Next=None,
            _Deployment=None,
        )
        if old is not None:
            self._remove(old)

    def _shift(self, following: Fleet, rollout: Rollout) -> None:
        deadline = time.monotonic() + rollout.maximum_seconds
        self._check_alarms(rollout.alarms)
        following.start(self._cancelled)
        for step in rollout.steps:
            with self._lock:
                self._next_share = step.fraction
            self._watch(step.seconds, rollout.alarms, deadline)
        self._watch(rollout.termination_seconds, rollout.alarms, deadline)

    def _watch(self, seconds: float, alarms: tuple[str, ...], deadline: float) -> None:
        end = time.monotonic() + seconds
        while True:
            self._raise_if_cancelled()
            self._check_alarms(alarms)
            now = time.monotonic()
            if now >= deadline:
                raise RolledBack("The deployment took longer than MaximumExecutionTimeoutInSeconds.")
            if now >= end:
                return
            self._cancel.wait(min(ALARM_POLL_SECONDS, end - now))

    def _check_alarms(self, alarms: tuple[str, ...]) -> None:
        if not alarms:
            return
        try:
            found = self.context.client("cloudwatch", self.region).describe_alarms(
                AlarmNames=list(alarms), AlarmTypes=["MetricAlarm", "CompositeAlarm"]
            )
        except (BotoCoreError, ClientError) as error:
            raise RolledBack(
                f"The alarms of the AutoRollbackConfiguration cannot be read: {error}"
            ) from error
        ringing = [
            alarm["AlarmName"]
            for alarm in [*found.get("MetricAlarms", []), *found.get("CompositeAlarms", [])]
            if alarm["StateValue"] == "ALARM"
        ]
        if ringing:
            raise RolledBack(
                f"One or more alarms of the AutoRollbackConfiguration are in ALARM: {', '.join(ringing)}. "
                "The endpoint was rolled back."
            )

    def _roll_back(self, following: Fleet, reason: str) -> None:
        with self._lock:
            self._next_share = 0.0
        with contextlib.suppress(sqlite3.Error):  # a full disk may have its room from the new fleet
            change = _changing({"EndpointStatus": "RollingBack", "FailureReason": reason})
            self.context.store.update(KIND, self.region, self.name, change)
        with self._lock:
            self._next = None
        self._remove(following)
        self._set(
            EndpointStatus="InService",
            FailureReason=reason,
            PendingDeploymentSummary=None,
            _Next=None,
            _Deployment=None,
        )

    def _remove(self, fleet: Fleet) -> None:
        """Remove a replaced fleet; a failure here must not fail the deployment."""
        try:
            fleet.remove()
        except Exception:
            logger.exception("a fleet of endpoint %s could not be removed", self.name)

    def _take_fleets(self) -> list[Fleet]:
        """Take the fleets out of traffic and return them."""
        fleets = self.fleets
        with self._lock:
            self._live = self._next = None
        return fleets

    def _delete(self) -> None:
        for fleet in self._take_fleets():
            fleet.remove()
        self._remove_folders()
        self.context.part(Endpoints).forget(self)
        self.context.store.delete(KIND, self.region, self.name)

    def _remove_folders(self, but: Set[str] = frozenset()) -> None:
        """Delete the folders that earlier fleets left, except `but`; without it, the endpoint's folder."""
        folder = folder_of(self.context, self.region, self.name)
        for left in folder.iterdir() if but and folder.is_dir() else [folder]:
            if left.name not in but:
                remove_tree(left)

    def _raise_if_cancelled(self) -> None:
        if self._cancelled():
            raise Cancelled


def _changing(members: Mapping[str, object]) -> Callable[[Document], None]:
    """Build a change of a document's members; None removes one."""

    def change(document: Document) -> None:
        for name, value in members.items():
            if value is None:
                document.pop(name, None)
            else:
                document[name] = value

    return change


def new_plan(
    config: Document,
    containers: Mapping[str, list[Document]],
    counts: Mapping[str, int] | None = None,
    weights: Mapping[str, float] | None = None,
) -> Plan:
    """Plan a fleet: a copy of the configuration and its containers, so that deleting those changes nothing."""
    return {
        "id": uuid.uuid4().hex[:12],
        "created": time.time(),
        "config": config,
        "containers": dict(containers),
        "counts": dict(counts or {}),
        "weights": dict(weights or {}),
    }


def _capture_summary(config: Document) -> Document | None:
    """Build the DataCaptureConfigSummary of a configuration."""
    capture = config.get("DataCaptureConfig")
    if capture is None:
        return None
    enabled = capture.get("EnableCapture", False)
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled else "Stopped",
        "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
        "DestinationS3Uri": capture["DestinationS3Uri"],
        "KmsKeyId": capture.get("KmsKeyId", ""),
    }


def first_members(plan: Plan) -> Document:
    """Return the members of a new endpoint's document that its configuration decides."""
    config = plan["config"]
    members = {
        "DataCaptureConfig": _capture_summary(config),
        "AsyncInferenceConfig": config.get("AsyncInferenceConfig"),
    }
    return {"_Live": plan, **{name: value for name, value in members.items() if value is not None}}


class Endpoints:
    """The running endpoints, by region and name."""

    def __init__(self) -> None:
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self._lock = threading.Lock()

    def ensure(self, context: Context, region: str, name: str) -> Endpoint:
        """Return the running side of an endpoint's record, created at first use."""
        with self._lock:
            return self._endpoints.setdefault((region, name), Endpoint(context, region, name))

    def forget(self, endpoint: Endpoint) -> None:
        """Forget a deleted endpoint, so that the next one of its name starts fresh."""
        with self._lock:
            if self._endpoints.get((endpoint.region, endpoint.name)) is endpoint:
                del self._endpoints[(endpoint.region, endpoint.name)]

    def get(self, region: str, name: str) -> Endpoint | None:
        """Return an endpoint by name, or None."""
        with self._lock:
            return self._endpoints.get((region, name))

    def all(self) -> list[Endpoint]:
        """Return all endpoints."""
        with self._lock:
            return list(self._endpoints.values())

    def recover(self, context: Context) -> None:
        """Restart every endpoint of the store."""
        for resource in context.store.all(KIND):
            self.ensure(context, resource.region, resource.name).recover(resource)

    def stop(self) -> None:
        """Stop all servers concurrently."""
        threads = [threading.Thread(target=endpoint.stop) for endpoint in self.all()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
