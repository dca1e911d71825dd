"""Public parameters that name machine images, which moto lacks: AWS's deep learning AMIs."""

from __future__ import annotations

import re
from typing import Any

_NAME = re.compile(r"^/aws/service/deeplearning/ami/(x86_64|arm64)/[A-Za-z0-9._-]+/latest/ami-id$")
IDS = {"x86_64": "ami-0d1a11a5e00000864", "arm64": "ami-0d1a11a5e00000a64"}
PUBLISHED = 1_767_225_600.0
"""2026-01-01: these images never change, for there are none; an instance is a folder on this machine."""


def public_parameter(region: str, name: str) -> dict[str, Any] | None:
    """Return the parameter of that name in GetParameter's form, or None when it is not one of these."""
    match = _NAME.match(name)
    if match is None:
        return None
    return {
        "Name": name,
        "Type": "String",
        "Value": IDS[match.group(1)],
        "Version": 1,
        "LastModifiedDate": PUBLISHED,
        "ARN": f"arn:aws:ssm:{region}::parameter{name}",
        "DataType": "aws:ec2:image",
    }
