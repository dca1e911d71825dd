"""Wait until an endpoint is settled: neither being created nor updated nor rolled back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.deployment.status import ABSENT, UNSETTLED
from ml_pipeline.errors import is_transient


class EndpointTrigger(BaseTrigger):
    """Fires once, when the endpoint is settled: `{"status", "config", "reason"}`; status may be `ABSENT`.

    Killing it does nothing to the endpoint: a rollout that is half done is worse than one that ends.

    :param endpoint_name: the endpoint.
    :param poll_seconds: pause between two Describe calls.
    :param access: fields of `AwsAccess`.
    """

    def __init__(self, endpoint_name: str, poll_seconds: float, access: dict[str, Any]) -> None:
        super().__init__()
        self.endpoint_name = endpoint_name
        self.poll_seconds = poll_seconds
        self.access = AwsAccess(**access)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path and the arguments that make an equal trigger in another process."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "endpoint_name": self.endpoint_name,
                "poll_seconds": self.poll_seconds,
                "access": self.access.to_dict(),
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the endpoint is settled."""
        async with await self.access.async_client("sagemaker") as sagemaker:
            seen = ""
            while True:
                try:
                    description = await self._describe(sagemaker)
                except Exception as error:
                    if not is_transient(error):
                        raise
                    self.log.warning("%s; asking again in %.0f s", error, self.poll_seconds)
                else:
                    status = description["EndpointStatus"]
                    if status != seen:
                        seen = status
                        self.log.info("endpoint %s: %s", self.endpoint_name, status)
                    if status not in UNSETTLED:
                        yield TriggerEvent(
                            {
                                "status": status,
                                "config": description.get("EndpointConfigName", ""),
                                "reason": description.get("FailureReason") or "",
                            }
                        )
                        return
                await asyncio.sleep(self.poll_seconds)

    async def _describe(self, sagemaker: Any) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        try:
            response: dict[str, Any] = await sagemaker.describe_endpoint(EndpointName=self.endpoint_name)
        except ClientError as error:
            if is_missing(error):
                return {"EndpointStatus": ABSENT}
            raise
        return response
