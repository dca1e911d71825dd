"""SageMaker's control plane as one WSGI app, and the recovery at its start."""

from __future__ import annotations

import logging

from local_aws.context import Context
from local_aws.gateway.json_service import JsonService
from local_aws.sagemaker import models, packages, recovery, search, tags
from local_aws.sagemaker.endpoints import configs as endpoint_configs
from local_aws.sagemaker.endpoints import operations as endpoint_operations
from local_aws.sagemaker.endpoints.endpoint import Endpoints
from local_aws.sagemaker.events import StateChanges
from local_aws.sagemaker.jobs.job import Jobs
from local_aws.sagemaker.operations import operation
from local_aws.sagemaker.processing import operations as processing
from local_aws.sagemaker.training import operations as training
from local_aws.sagemaker.transform import operations as transform
from local_aws.sagemaker.tuning import operations as tuning

OPERATIONS = (
    endpoint_configs,
    endpoint_operations,
    models,
    packages,
    processing,
    search,
    tags,
    training,
    transform,
    tuning,
)
"""The modules whose import registers operations."""

logger = logging.getLogger(__name__)


class SageMaker(JsonService):
    """The service. Importing a module of operations registers them."""

    def __init__(self, context: Context) -> None:
        super().__init__(operation, context)
        self._context = context
        self._events = StateChanges(context)

    def start(self) -> None:
        """Settle the jobs and restart the endpoints of an earlier process."""
        self._events.start()
        recovery.recover(self._context)
        self._context.part(Endpoints).recover(self._context)

    def stop(self) -> None:
        """Stop the endpoints and wait until every job has killed its processes."""
        self._context.part(Endpoints).stop()
        self._context.part(Jobs).join()
        self._events.stop()
