"""`--iam enforce`: an AWS service delivers to a queue or topic only what the policy attached to that lets it deliver.

S3 and CloudWatch ask by `Context.admits`; moto's EventBridge and SNS are wrapped.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from local_aws.iam.policy import Access, Grant, granted
from local_aws.iam.resource_policies import policy_of
from local_aws.s3.store import S3Store
from local_aws.settings import ACCOUNT_ID

logger = logging.getLogger(__name__)

Admits = Callable[[str, str, str], bool]
"""(service, ARN of the queue or topic, ARN of the source) -> whether the service may deliver."""
_ACTIONS = {"sqs": "sqs:SendMessage", "sns": "sns:Publish"}
_FOR_THE_OWNER = frozenset({"cloudwatch.amazonaws.com"})
"""Services that state the owner of the source, which the default policy of a topic asks for."""


def admits(service: str, target: str, source: str, store: S3Store) -> bool:
    """Return True if the policy of a queue or topic lets a service such as `s3.amazonaws.com` deliver to it."""
    document = policy_of(target, store)
    if document is None:
        return False
    keys = {
        "aws:sourcearn": (source,),
        "aws:sourceaccount": (ACCOUNT_ID,),
        "aws:principalisawsservice": ("true",),
        "aws:principalservicename": (service,),
        "aws:securetransport": ("true",),
    }
    if service in _FOR_THE_OWNER:
        keys["aws:sourceowner"] = (ACCOUNT_ID,)
    action = _ACTIONS.get(target.split(":")[2], "")
    return granted(document, Access(action, target, keys), (service,), "") is Grant.TO_PRINCIPAL


def watch_moto(may: Admits) -> None:
    """Let moto's rules and subscriptions deliver to queues only what `may` admits."""
    from moto.events.models import Rule
    from moto.sns.models import Subscription

    deliver = Rule._send_to_sqs_queue

    @functools.wraps(deliver)
    def send(rule: Any, queue: str, *rest: Any) -> None:
        target = f"arn:aws:sqs:{rule.region_name}:{rule.account_id}:{queue}"
        if _is_admitted(may, "events.amazonaws.com", target, rule.arn):
            deliver(rule, queue, *rest)

    publish = Subscription.publish

    @functools.wraps(publish)
    def tell(subscription: Any, *given: Any, **named: Any) -> None:
        if subscription.protocol != "sqs" or _is_admitted(
            may, "sns.amazonaws.com", subscription.endpoint, subscription.topic.arn
        ):
            publish(subscription, *given, **named)

    Rule._send_to_sqs_queue = send
    Subscription.publish = tell


def _is_admitted(may: Admits, service: str, target: str, source: str) -> bool:
    allowed = may(service, target, source)
    if not allowed:
        logger.warning("the policy of %s does not let %s deliver from %s", target, service, source)
    return allowed
