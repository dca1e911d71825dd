"""SageMaker's control plane as one WSGI app: every module of operations, and what must be recovered at the start."""

from __future__ import annotations

from local_aws.context import Context
from local_aws.json_service import JsonService
from local_aws.sagemaker.operations import operation


class SageMaker(JsonService):
    """The service. Importing a module registers its operations."""

    def __init__(self, context: Context) -> None:
        super().__init__(operation, context)
        self._context = context

    def start(self) -> None:
        """Recover what an earlier process left."""

    def stop(self) -> None:
        """End every job."""
