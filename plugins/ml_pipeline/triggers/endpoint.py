"""Wait until an endpoint is settled: neither being created nor updated nor rolled back."""

from __future__ import annotations

from dataclasses import dataclass

from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.deployment.status import ABSENT, UNSETTLED
from ml_pipeline.requests.types import Document
from ml_pipeline.triggers.base import Event, PollingTrigger
from ml_pipeline.triggers.clients import Clients


@dataclass(eq=False, repr=False, kw_only=True)
class EndpointTrigger(PollingTrigger):
    """Fire when the endpoint is settled: `{"status", "config", "reason"}`; the status may be `ABSENT`.

    A kill does nothing to the endpoint: a rollout that is cut off is worse than one that ends.
    """

    endpoint_name: str

    def __post_init__(self) -> None:
        super().__post_init__()
        self._seen = ""

    @property
    def subject(self) -> str:
        """The rollout of the endpoint."""
        return f"the rollout of endpoint {self.endpoint_name}"

    async def poll(self, clients: Clients) -> Event | None:
        """Look at the endpoint's status."""
        description = await self._describe(await clients.get("sagemaker"))
        status = description["EndpointStatus"]
        if status != self._seen:
            self._seen = status
            self.log.info("endpoint %s: %s", self.endpoint_name, status)
        if status in UNSETTLED:
            return None
        return {
            "status": status,
            "config": description.get("EndpointConfigName", ""),
            "reason": description.get("FailureReason") or "",
        }

    async def _describe(self, sagemaker: Client) -> Document:
        from botocore.exceptions import ClientError

        try:
            response: Document = await sagemaker.describe_endpoint(EndpointName=self.endpoint_name)
        except ClientError as error:
            if is_missing(error):
                return {"EndpointStatus": ABSENT}
            raise
        return response
