"""Start and end the scaling of an endpoint with its load."""

from __future__ import annotations

from ml_pipeline.aws.clients import Client
from ml_pipeline.requests import endpoint
from ml_pipeline.requests.endpoint import Serving


def scale(client: Client, serving: Serving) -> None:
    """Let the endpoint scale within the limits of `serving`; a count outside of them is brought inside.

    Args:
        client: boto3 client of application-autoscaling.
        serving: The endpoint, with its minimum and maximum of instances.
    """
    target, policy = endpoint.autoscaling(serving)
    client.register_scalable_target(**target)
    client.put_scaling_policy(**policy)


def limits(client: Client, endpoint_name: str) -> tuple[int, int] | None:
    """Return the smallest and the largest number of instances, or None if nothing scales the endpoint."""
    target = endpoint.scalable_target(endpoint_name)
    found = client.describe_scalable_targets(
        ServiceNamespace=target["ServiceNamespace"], ResourceIds=[target["ResourceId"]]
    )["ScalableTargets"]
    return (int(found[0]["MinCapacity"]), int(found[0]["MaxCapacity"])) if found else None


def remove(client: Client, endpoint_name: str) -> bool:
    """Keep the number of instances as it is from now on. Return False if nothing scaled it."""
    target = endpoint.scalable_target(endpoint_name)
    found = client.describe_scalable_targets(
        ServiceNamespace=target["ServiceNamespace"], ResourceIds=[target["ResourceId"]]
    )
    if not found["ScalableTargets"]:
        return False
    client.deregister_scalable_target(**target)
    return True
