"""CloudFormation: moto reads templates and keeps stacks; what it would skip or keep to itself is made by us or refused.

moto skips resource types that it does not know, and makes some of ours where our APIs would not see them. Either
would be a stack that says CREATE_COMPLETE and is not there: the types of `stack_resources.TYPES` are really made, any
other such type is refused before anything is made. And moto leaves a stack that failed half made, and knows
neither outputs nor imports of a stack made by a change set, which is how `aws cloudformation deploy` makes them.
"""

from __future__ import annotations

import functools
import json
import logging
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.core.common_models import CloudFormationModel

from local_aws.cloudformation.resources import TYPES, Client, Unsupported, check
from local_aws.context import Context

logger = logging.getLogger(__name__)

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
    return sorted(
        t for t in types if t not in HARMLESS and t not in TYPES and (t not in known or t.startswith(OURS))
    )


class Applied(CloudFormationModel):
    """A resource of a stack that one of our APIs keeps."""

    clients: Context

    def __init__(self, kind: str, region: str, identifier: str, attributes: dict[str, str]) -> None:
        self.kind, self.region = kind, region
        self.id, self.attributes = identifier, attributes
        self.properties: dict[str, Any] = {}

    @property
    def physical_resource_id(self) -> str:
        """The value of Ref."""
        return self.id

    def get_cfn_attribute(self, attribute: str) -> str:
        """Return the values of Fn::GetAtt."""
        if attribute not in self.attributes:
            raise _refused(f"{self.kind} has no attribute {attribute} on local_aws")
        return self.attributes[attribute]

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Return True; CloudFormation asks again after the creation."""
        return True

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Applied:
        """Make one."""
        kind, properties = kwargs["ResourceType"], cloudformation_json["Properties"]
        try:
            made = check(kind, properties).create(_client(region_name), resource_name, properties)
        except Unsupported as error:
            raise _refused(str(error)) from error
        resource = cls(kind, region_name, made.id, dict(made.attributes))
        resource.properties = properties
        return resource

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: Any,
        new_resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
    ) -> Any:
        """Bring one to new properties."""
        properties, kind = cloudformation_json["Properties"], original_resource.kind
        try:
            found = check(kind, properties)
        except Unsupported as error:
            raise _refused(str(error)) from error
        before = original_resource.properties
        changed = {name for name in {*properties, *before} if properties.get(name) != before.get(name)}
        gone = sorted(name for name in changed if name not in properties)
        if changed and (found.configure is None or changed & found.fixed or gone):
            names = ", ".join(sorted(changed))
            raise _refused(f"local_aws cannot change {names} of {kind}: delete the stack and create it again")
        if found.configure is not None:
            found.configure(_client(region_name), original_resource.id, properties)
        original_resource.properties = properties
        return original_resource

    def delete(self, account_id: str, region_name: str) -> None:
        """Remove it."""
        TYPES[self.kind].delete(_client(region_name), self.id)

    def is_created(self) -> bool:
        """At once."""
        return True


def _client(region: str) -> Client:
    return lambda service: Applied.clients.client(service, region)


def _refused(message: str) -> Exception:
    from moto.cloudformation.exceptions import ValidationError

    error: Exception = ValidationError(message=message)
    return error


@functools.cache
def _patch() -> None:
    """Once per process: moto's ResourceMap, through which every stack and change set goes, and its backend."""
    from moto.cloudformation import parsing
    from moto.cloudformation.models import CloudFormationBackend

    make, create = parsing.ResourceMap.__init__, CloudFormationBackend.create_stack
    known = set(parsing.get_model_map())
    parsing.get_model_map().update(dict.fromkeys(TYPES, Applied))

    def make_checked(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        _check_types(self._resource_json_map, known)
        for parameter in self._template.get("Parameters", {}).values():
            # As on AWS the value of a parameter is text, also of the type Number.
            if isinstance(parameter.get("Default"), int | float):
                parameter["Default"] = json.dumps(parameter["Default"])

    def create_or_roll_back(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        before = set(self.stacks)
        try:
            return create(self, name, *args, **kwargs)
        except Exception as error:
            stack = next((found for key, found in self.stacks.items() if key not in before), None)
            if stack is None:
                raise  # refused before anything was made
            _roll_back(stack, error)
            return stack

    parsing.ResourceMap.__init__ = make_checked
    CloudFormationBackend.create_stack = create_or_roll_back
    CloudFormationBackend.execute_change_set = _execute


def install(context: Context) -> None:
    """Let moto's CloudFormation make our resource types and refuse what it would skip."""
    Applied.clients = context
    _patch()


def _check_types(resources: dict[str, Any], known: set[str]) -> None:
    types = {str(resource.get("Type")) for resource in resources.values()}
    refused = unsupported_types(types, known)
    if refused:
        names = ", ".join(refused)
        raise _refused(f"Template format error: local_aws does not support these resource types: {names}")


def _execute(backend: Any, change_set_name: str, stack_name: str | None = None) -> None:
    """ExecuteChangeSet: as moto's, but with outputs, imports, and a rollback."""
    found = [
        each
        for key, each in backend.change_sets.items()
        if key == change_set_name
        or (each.change_set_name == change_set_name and stack_name in (None, each.stack_name, each.stack_id))
    ]
    if not found:
        raise _refused(f"ChangeSet [{change_set_name}] does not exist")
    change_set = found[-1]
    stack, kind = backend.stacks[change_set.stack_id], change_set.change_set_type
    _check_types(change_set.template_dict.get("Resources", {}), set(_known_types()))
    try:
        if kind == "CREATE":
            stack._add_stack_event("CREATE_IN_PROGRESS", resource_status_reason="User Initiated")
            _create(backend, stack, change_set)
        else:
            stack.resource_map.cross_stack_resources = backend.exports
            stack.update(change_set.template, change_set.role_arn, change_set.parameters, change_set.tags)
    except Exception as error:
        change_set.execution_status = "EXECUTE_FAILED"
        if kind == "CREATE":
            _roll_back(stack, error)
        else:
            _fail(stack, "UPDATE_ROLLBACK_FAILED", error)
        return
    for export in stack.exports:
        backend.exports[export.name] = export
    change_set.execution_status = "EXECUTE_COMPLETE"
    stack.status = f"{kind}_COMPLETE"


def _known_types() -> Any:
    from moto.cloudformation import parsing

    return parsing.get_model_map()


def _create(backend: Any, stack: Any, change_set: Any) -> None:
    stack.template, stack.parameters = change_set.template, change_set.parameters
    stack._parse_template()
    stack.cross_stack_resources = backend.exports
    stack.resource_map = stack._create_resource_map()
    stack.output_map = stack._create_output_map()
    stack.create_resources()


def _roll_back(stack: Any, error: Exception) -> None:
    """Remove what a failed stack had made; it stays to be described, as on AWS."""
    try:
        stack.resource_map.delete()
        status = "ROLLBACK_COMPLETE"
    except Exception as second:
        logger.exception("stack %s could not be rolled back", stack.name)
        error, status = second, "ROLLBACK_FAILED"
    # moto would read them from resources that are not there.
    stack.output_map._output_json_map = {}
    _fail(stack, status, error)


def _fail(stack: Any, status: str, error: Exception) -> None:
    known = isinstance(error, (ClientError, BotoCoreError))
    reason = str(error) if known else str(getattr(error, "message", "") or error)
    logger.warning("stack %s: %s: %s", stack.name, status, reason)
    stack._add_stack_event("CREATE_FAILED" if "UPDATE" not in status else "UPDATE_FAILED", reason)
    stack._add_stack_event(status, reason)
    stack.status = status
