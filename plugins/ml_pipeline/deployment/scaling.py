"""Whether an endpoint scales with its load."""

from __future__ import annotations

from typing import Any

from ml_pipeline.requests import endpoint
from ml_pipeline.requests.endpoint import Serving


def scale(client: Any, serving: Serving) -> None:
    """Let the endpoint scale within the limits of `serving`; a count that is outside is brought inside.

    Args:
        client: boto3 client of application-autoscaling.
    """
    target, policy = endpoint.autoscaling(serving)
    client.register_scalable_target(**target)
    client.put_scaling_policy(**policy)


def remove(client: Any, endpoint_name: str) -> bool:
    """Keep the number of machines as it is from now on. False: nothing scaled it."""
    target = endpoint.scalable_target(endpoint_name)
    found = client.describe_scalable_targets(
        ServiceNamespace=target["ServiceNamespace"], ResourceIds=[target["ResourceId"]]
    )
    if not found["ScalableTargets"]:
        return False
    client.deregister_scalable_target(**target)
    return True
