"""All instances: started, watched for shutdowns from inside, restored after a restart."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.ec2.models import ec2_backends

from local_aws.context import Context
from local_aws.ec2.instance import KIND, Instance, moto_instance, tags_of, user_data_of
from local_aws.ec2.metadata import MetadataService
from local_aws.settings import ACCOUNT_ID
from local_aws.state.resources import AlreadyExists, Missing, Resource

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.2


class Instances:
    """The register of instances."""

    def __init__(self, context: Context, metadata: MetadataService) -> None:
        self.context = context
        self._metadata = metadata
        self._instances: dict[str, Instance] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="instances", daemon=True)

    def start(self) -> None:
        """Restore the instances of an earlier process and start watching."""
        for resource in self.context.store.all(KIND):
            if _state(resource.region, resource.name) in ("terminated", ""):
                self.context.store.delete(KIND, resource.region, resource.name)
                self._make(resource.region, resource.name).remove()
                continue
            # User data run at the first boot only; what ran when local_aws ended is gone, as after a power failure.
            self._add(resource.region, resource.name).boot(b"")
        self._thread.start()

    def stop(self) -> None:
        """Kill what runs."""
        for instance in self.all():
            instance.halt()

    def all(self) -> list[Instance]:
        """Return the instances that are not terminated."""
        with self._lock:
            return list(self._instances.values())

    def get(self, instance_id: str) -> Instance | None:
        """Return an instance by id, or None."""
        with self._lock:
            return self._instances.get(instance_id)

    def running(self, region: str) -> list[Instance]:
        """Return the running instances of a region."""
        return [i for i in self.all() if i.region == region and _state(region, i.id) == "running"]

    def launch(self, region: str, instance_id: str) -> None:
        """Boot an instance that moto has just created."""
        try:
            arn = self.context.arn(region, f"instance/{instance_id}", "ec2")
            self.context.store.create(Resource(KIND, region, instance_id, arn, {}))
        except AlreadyExists:
            return
        self._announce(region, instance_id, "pending")
        self._add(region, instance_id).boot(user_data_of(region, instance_id))
        self._announce(region, instance_id, "running")

    def terminated(self, region: str, instance_id: str) -> None:
        """Kill a terminated instance's processes and delete its folder."""
        with self._lock:
            instance = self._instances.pop(instance_id, None)
        if instance is None:
            return
        instance.remove()
        self._metadata.forget(instance_id)
        try:
            self.context.store.delete(KIND, region, instance_id)
        except Missing:
            logger.debug("instance %s was not recorded", instance_id)
        self._announce(region, instance_id, "terminated")

    def stopped(self, region: str, instance_id: str) -> None:
        """Kill a stopped instance's processes; the folder stays, as a volume does."""
        instance = self.get(instance_id)
        if instance is not None:
            instance.halt()
            self._announce(region, instance_id, "stopped")

    def started(self, region: str, instance_id: str) -> None:
        """Let a started instance run programs again."""
        instance = self.get(instance_id)
        if instance is not None:
            instance.resume()
            self._announce(region, instance_id, "running")

    def status(self) -> list[dict[str, Any]]:
        """Describe the instances for `local_aws status`: `seconds` since launch, `pids` that run now."""
        launched = {resource.name: resource.created for resource in self.context.store.all(KIND)}
        entries = []
        for instance in self.all():
            state = _state(instance.region, instance.id)
            entries.append(
                {
                    "id": instance.id,
                    "name": tags_of(instance.region, instance.id).get("Name", ""),
                    "region": instance.region,
                    "state": state,
                    "seconds": round(time.time() - launched.get(instance.id, time.time())),
                    "pids": instance.pids,
                    "ssm": "Online" if state == "running" else "ConnectionLost",
                }
            )
        return entries

    def _make(self, region: str, instance_id: str) -> Instance:
        return Instance(self.context, region, instance_id, self._metadata.address(instance_id))

    def _add(self, region: str, instance_id: str) -> Instance:
        instance = self._make(region, instance_id)
        with self._lock:
            self._instances[instance_id] = instance
        return instance

    def _watch(self) -> None:
        while not self.context.stopping.wait(WATCH_SECONDS):
            for instance in self.all():
                try:
                    self._look(instance)
                except (ClientError, BotoCoreError, OSError) as error:
                    logger.warning("instance %s: %s", instance.id, error)

    def _look(self, instance: Instance) -> None:
        """Carry out a shutdown from inside that is due."""
        try:
            action, due = instance.shutdown_request().split()
        except ValueError:
            return
        if action == "cancel":
            instance.control.unlink(missing_ok=True)
            return
        if not due.isdigit() or time.time() < int(due):
            return
        instance.control.unlink(missing_ok=True)
        logger.info("instance %s: %s from inside", instance.id, action)
        ec2 = self.context.client("ec2", instance.region)
        if action == "reboot":
            instance.halt()
            instance.resume()
        elif moto_instance(instance.region, instance.id).instance_initiated_shutdown_behavior == "terminate":
            ec2.terminate_instances(InstanceIds=[instance.id])
        else:
            ec2.stop_instances(InstanceIds=[instance.id])

    def _announce(self, region: str, instance_id: str, state: str) -> None:
        """On EventBridge, in the background: no request waits for its listeners."""
        entry = {
            "Source": "aws.ec2",
            "DetailType": "EC2 Instance State-change Notification",
            "Detail": json.dumps({"instance-id": instance_id, "state": state}),
            "Resources": [self.context.arn(region, f"instance/{instance_id}", "ec2")],
        }

        def send() -> None:
            try:
                self.context.client("events", region).put_events(Entries=[entry])
            except (ClientError, BotoCoreError) as error:
                logger.warning("the state change of %s could not be published: %s", instance_id, error)

        threading.Thread(target=send, name=f"state of {instance_id}", daemon=True).start()


def _state(region: str, instance_id: str) -> str:
    """Return moto's state of an instance, "" when it does not know it."""
    for instance in ec2_backends[ACCOUNT_ID][region].all_instances():
        if instance.id == instance_id:
            return str(instance.state)
    return ""
