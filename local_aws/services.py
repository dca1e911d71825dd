"""Assemble the services: the only module that knows all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from local_aws import status
from local_aws.autoscaling.service import AutoScaling
from local_aws.cloudformation import service as cloudformation
from local_aws.cloudwatch.alarms import Monitoring
from local_aws.context import Context
from local_aws.ec2.service import Ec2
from local_aws.ec2.ssm import Ssm
from local_aws.execution.processes import support
from local_aws.gateway.doors import Doors
from local_aws.gateway.router import Router, Service
from local_aws.iam import deliveries
from local_aws.iam.authentication import Authentication, verify_form
from local_aws.iam.gate import Gate, admit_form
from local_aws.iam.principals import may_be_taken
from local_aws.iam.secrets import SecretKeys
from local_aws.iam.simulator import PolicySimulator
from local_aws.logs.service import Logs
from local_aws.moto_bridge.apps import MotoApps
from local_aws.moto_bridge.state import MotoState
from local_aws.s3.app import S3App
from local_aws.s3.notifications import queue_sender
from local_aws.s3.post_form import Admit, Form
from local_aws.s3.store import S3Store
from local_aws.sagemaker.endpoints.runtime import Runtime
from local_aws.sagemaker.service import SageMaker
from local_aws.sagemaker.training.interruptions import interrupt
from local_aws.settings import EVERY_ADDRESS


def build(context: Context, token: str = "") -> Router:
    """Return the router with every service registered; nothing runs before `router.start()`.

    Args:
        context: settings and stores that the services share.
        token: the bearer token of admin pages, "" for none.
    """
    settings = context.settings
    doors = Doors(settings.hosts | ({settings.host} - set(EVERY_ADDRESS)), settings.origins)
    router = Router(settings.region, context.mark, doors, token)
    keys = SecretKeys(context.root_key)
    store = S3Store(settings.state / "s3")
    router.guard = _guard(context, keys, store)
    if settings.enforce_iam:
        context.admits = lambda service, target, source: deliveries.admits(service, target, source, store)
        deliveries.watch_moto(context.admits)
    moto = MotoApps(
        MotoState(context.settings.state / "moto"),
        {"cloudformation": lambda: cloudformation.install(context)},
    )
    router.register_fallback(moto)
    router.register("iam", PolicySimulator(context, moto))
    router.register("s3", S3App(store, queue_sender(context), _admission(context, keys, store)))
    sagemaker = SageMaker(context)
    router.register("sagemaker", sagemaker)
    router.register("sagemaker-runtime", Runtime(context))
    ec2 = Ec2(context, moto, may_be_taken if settings.enforce_iam else None)
    router.register("ec2", ec2)
    router.register("ssm", Ssm(context, moto, ec2.instances))
    router.register("application-autoscaling", AutoScaling(context))
    router.register("monitoring", Monitoring(context, moto))
    router.register("logs", Logs(context))
    router.admin("health", lambda _method, _rest, _query: health(context))
    router.admin("status", lambda _method, _rest, _query: status.gather(context, ec2.instances.status()))
    router.admin("interrupt", lambda method, name, _query: interrupt(context, method, name))
    return router


def _guard(context: Context, keys: SecretKeys, store: S3Store) -> Callable[[Service], Service]:
    """Return the wrapper of every service: signatures first, then policies."""

    def guard(app: Service) -> Service:
        enforce = context.settings.enforce_iam
        if enforce:
            app = Gate(context, app, store)
        return Authentication(keys, app, has_gate=enforce) if context.settings.verifies else app

    return guard


def _admission(context: Context, keys: SecretKeys, store: S3Store) -> Admit | None:
    """Return the check of browsers' POSTs to S3; None while any credentials are accepted."""
    if not context.settings.verifies:
        return None

    def admit(form: Form) -> None:
        access_key = verify_form(form, keys)
        if context.settings.enforce_iam:
            admit_form(form, access_key, context.root_key.id, store)

    return admit


def health(context: Context) -> dict[str, Any]:
    """Answer GET /_local_aws/health."""
    return {
        "status": "ok",
        "url": context.url,
        "region": context.settings.region,
        "cores": context.capacity.cores,
        "free_cores": context.capacity.free,
        "isolation": support().name,
    }
