"""Which services there are: the one place where they are put together."""

from __future__ import annotations

from typing import Any

from local_aws.app import Router
from local_aws.context import Context
from local_aws.moto_apps import MotoApps
from local_aws.sagemaker.service import SageMaker


def build(context: Context) -> Router:
    """The router with every service registered. Nothing runs before `router.start()`."""
    router = Router(context.settings.region)
    router.register_fallback(MotoApps())
    sagemaker = SageMaker(context)
    router.register("sagemaker", sagemaker)
    router.admin("health", lambda _method, _rest, _query: health(context))
    return router


def health(context: Context) -> dict[str, Any]:
    """What GET /_local_aws/health answers."""
    return {
        "status": "ok",
        "url": context.url,
        "region": context.settings.region,
        "cores": context.capacity.cores,
        "free_cores": context.capacity.free,
    }
