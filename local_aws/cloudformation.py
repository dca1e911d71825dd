"""CloudFormation: moto makes stacks, but skips resource types that it does not know and keeps some of ours to
itself.

Either would be a stack that says CREATE_COMPLETE and is not there, so a template with such a type is refused
before anything is made.
"""

from __future__ import annotations

import functools
from typing import Any

OURS = (
    "AWS::S3::",
    "AWS::SageMaker::",
    "AWS::Logs::",
    "AWS::ApplicationAutoScaling::",
    "AWS::EC2::Instance",
    "Custom::",
)
"""Services that local_aws answers itself: what moto made of these would be invisible to their APIs."""
HARMLESS = frozenset({"AWS::CloudFormation::WaitCondition", "AWS::CloudFormation::WaitConditionHandle"})


def unsupported_types(types: set[str], known: set[str]) -> list[str]:
    """Those resource types of a template that would be skipped or pretended."""
    return sorted(t for t in types if t not in HARMLESS and (t not in known or t.startswith(OURS)))


@functools.cache
def refuse_what_would_be_skipped() -> None:
    """Make moto check a template's types first. Patches ResourceMap, through which every stack and change set
    goes.
    """
    from moto.cloudformation import parsing
    from moto.cloudformation.exceptions import ValidationError

    make = parsing.ResourceMap.__init__

    def make_checked(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        types = {str(resource.get("Type")) for resource in self._resource_json_map.values()}
        refused = unsupported_types(types, set(parsing.get_model_map()))
        if refused:
            raise ValidationError(
                message="Template format error: local_aws does not support these resource types: "
                + ", ".join(refused)
            )

    parsing.ResourceMap.__init__ = make_checked
