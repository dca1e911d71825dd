"""Check RunInstances and state changes as AWS does at the call, where moto accepts anything."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import botocore.session
from moto.ec2.models import ec2_backends
from moto.utilities.utils import load_resource

from local_aws.ec2.images import IDS
from local_aws.errors import AwsError
from local_aws.settings import ACCOUNT_ID

Parameters = dict[str, str]

DEFAULT_ROOT_GIB = 8
_IMAGE_ID = re.compile(r"ami-(?:[0-9a-f]{8}|[0-9a-f]{17})")
_DEVICE = re.compile(r"BlockDeviceMapping\.\d+\.DeviceName")
_STATES = {
    "StartInstances": ("started", {"stopped", "stopping", "running", "pending"}),
    "StopInstances": ("stopped", {"running", "pending", "stopped", "stopping"}),
    "RebootInstances": ("rebooted", {"running", "pending"}),
}
"""Operation -> its word in AWS's error, and the states that it accepts."""


def checked(params: Parameters, region: str) -> Parameters:
    """Return the parameters of a RunInstances request with what the image determines.

    Raises:
        AwsError: InvalidAMIID.Malformed, InvalidAMIID.NotFound, InvalidParameterValue for an unknown instance type.
    """
    from_template = any(name.startswith("LaunchTemplate.") for name in params)
    image, kind = params.get("ImageId", ""), params.get("InstanceType", "")
    if not image and not from_template:
        raise AwsError("MissingParameter", "The request must contain the parameter ImageId")
    if image and not is_image(image, region):
        if not _IMAGE_ID.fullmatch(image):
            raise AwsError("InvalidAMIID.Malformed", f'Invalid id: "{image}" (expecting "ami-...")')
        raise AwsError("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
    if kind and kind not in instance_types():
        raise AwsError("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
    return params | _root_size(params, region)


def check_state(action: str, names: list[str], region: str) -> None:
    """Refuse an operation on instances in a state that it does not accept. Raises IncorrectInstanceState."""
    if action not in _STATES:
        return
    word, accepted = _STATES[action]
    states = {i.id: str(i.state) for i in ec2_backends[ACCOUNT_ID][region].all_instances()}
    for name in names:
        if states.get(name, "running") not in accepted:
            raise AwsError(
                "IncorrectInstanceState",
                f"The instance '{name}' is not in a state from which it can be {word}.",
            )


def is_image(image: str, region: str) -> bool:
    """Return True for an AMI that exists: registered, or named by a public parameter."""
    return (
        image in ec2_backends[ACCOUNT_ID][region].amis or image in IDS.values() or image in _published(region)
    )


@functools.cache
def instance_types() -> frozenset[str]:
    """Return the names of all instance types of EC2."""
    shape: Any = botocore.session.get_session().get_service_model("ec2").shape_for("InstanceType")
    return frozenset(shape.enum)


@functools.cache
def _published(region: str) -> frozenset[str]:
    """Return the AMIs under /aws/service/ami-amazon-linux-latest, which moto's SSM names and its EC2 lacks."""
    try:
        parameters = load_resource(f"ssm/resources/ami-amazon-linux-latest/{region}.json")
    except FileNotFoundError:
        return frozenset()
    return frozenset(re.findall(_IMAGE_ID, json.dumps(parameters)))


def _root_size(params: Parameters, region: str) -> Parameters:
    """Return the size of a root device that the request maps without one: that of the image."""
    image = ec2_backends[ACCOUNT_ID][region].amis.get(params.get("ImageId", ""))
    root = str(getattr(image, "root_device_name", None) or "/dev/xvda")
    found: Parameters = {}
    for name, device in params.items():
        if not _DEVICE.fullmatch(name) or device != root:
            continue
        prefix = name.removesuffix("DeviceName") + "Ebs."
        if not {prefix + "VolumeSize", prefix + "SnapshotId"} & set(params):
            found[prefix + "VolumeSize"] = str(DEFAULT_ROOT_GIB)
    return found
