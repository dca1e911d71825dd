"""Assemble the services: the only module that knows all of them."""

from __future__ import annotations

from typing import Any

from local_aws import status
from local_aws.autoscaling.service import AutoScaling
from local_aws.cloudformation import service as cloudformation
from local_aws.cloudwatch.alarms import Monitoring
from local_aws.context import Context
from local_aws.ec2.service import Ec2
from local_aws.ec2.ssm import Ssm
from local_aws.gateway.router import Router
from local_aws.iam.gate import Gate
from local_aws.iam.simulator import PolicySimulator
from local_aws.logs.service import Logs
from local_aws.moto_bridge.apps import MotoApps
from local_aws.moto_bridge.state import MotoState
from local_aws.s3.app import S3App
from local_aws.s3.queues import queue_sender
from local_aws.s3.store import S3Store
from local_aws.sagemaker.endpoints.runtime import Runtime
from local_aws.sagemaker.service import SageMaker
from local_aws.sagemaker.training.interruptions import interrupt


def build(context: Context) -> Router:
    """The router with every service registered. Nothing runs before `router.start()`."""
    router = Router(context.settings.region, own=context.mark)
    if context.settings.enforce_iam:
        router.guard = lambda app: Gate(context, app)
    moto = MotoApps(
        MotoState(context.settings.state / "moto"),
        {"cloudformation": lambda: cloudformation.install(context)},
    )
    router.register_fallback(moto)
    router.register("iam", PolicySimulator(context, moto))
    s3 = S3App(S3Store(context.settings.state / "s3"), send=queue_sender(context))
    router.register("s3", s3)
    sagemaker = SageMaker(context)
    router.register("sagemaker", sagemaker)
    router.register("sagemaker-runtime", Runtime(context))
    ec2 = Ec2(context, moto)
    router.register("ec2", ec2)
    router.register("ssm", Ssm(context, moto, ec2.instances))
    router.register("application-autoscaling", AutoScaling(context))
    router.register("monitoring", Monitoring(context, moto))
    router.register("logs", Logs(context))
    router.admin("health", lambda _method, _rest, _query: health(context))
    router.admin("status", lambda _method, _rest, _query: status.gather(context, ec2.instances.status()))
    router.admin("interrupt", lambda method, name, _query: interrupt(context, method, name))
    return router


def health(context: Context) -> dict[str, Any]:
    """Answer GET /_local_aws/health."""
    return {
        "status": "ok",
        "url": context.url,
        "region": context.settings.region,
        "cores": context.capacity.cores,
        "free_cores": context.capacity.free,
    }
