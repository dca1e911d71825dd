"""The Amazon provider's hook, without what costs each task a second time what the first one has paid."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

if TYPE_CHECKING:
    from botocore.loaders import Loader

# The services of most tasks.
_SERVICES = ("s3", "sagemaker")


class Hook(AwsBaseHook):
    """A hook whose sessions share botocore's service models, and which does not look for its caller."""

    def get_session(self, region_name: str | None = None, deferrable: bool = False) -> Any:
        """Return a session of boto3, or one of aiobotocore if `deferrable`."""
        session = super().get_session(region_name, deferrable)
        if not deferrable:
            # Each session would read the models of its services anew: 0.3 s of CPU for SageMaker's.
            core = session._session
            core.register_component("data_loader", loader(core.get_config_variable("data_path")))
        return session

    def _get_caller(self, target_function_name: str = "execute") -> str:
        # For this word of the User-Agent header the provider reads the source of every frame of the stack: a third of
        # the CPU of a short task.
        return "ml-pipeline"


@cache
def loader(data_path: str | None) -> Loader:
    """Return botocore's loader, which keeps every model that it has read."""
    from botocore.loaders import create_loader

    return create_loader(data_path)


def preload() -> None:
    """Load modules, endpoints and the service models of most tasks."""
    import botocore.session

    core = botocore.session.Session()
    core.register_component("data_loader", loader(core.get_config_variable("data_path")))
    for service in _SERVICES:
        core.create_client(service, "us-east-1", aws_access_key_id="-", aws_secret_access_key="-")
