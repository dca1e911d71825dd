"""Derive the permissions a SageMaker request needs: its action, PassRole, and AddTags.

After "Actions, resources, and condition keys for Amazon SageMaker AI" of the Service Authorization Reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from local_aws.iam.policy import Access
from local_aws.settings import ACCOUNT_ID

Document = dict[str, Any]
SERVICE = "sagemaker.amazonaws.com"

_KINDS = {
    "HyperParameterTuningJob": "hyper-parameter-tuning-job",
    "TrainingJob": "training-job",
    "ProcessingJob": "processing-job",
    "TransformJob": "transform-job",
    "EndpointConfig": "endpoint-config",
    "Endpoint": "endpoint",
    "ModelPackageGroup": "model-package-group",
    "ModelPackage": "model-package",
    "Model": "model",
}
"""The noun of an operation -> the resource type in ARNs; longer nouns come first."""
_UNNARROWED = ("List", "Search")
_ALSO = {
    "CreateEndpoint": ("EndpointConfig",),
    "UpdateEndpoint": ("EndpointConfig",),
    "CreateModelPackage": ("ModelPackageGroup",),
}
"""Further resources on which an operation needs its own action."""


def needs(operation: str, params: Document, region: str, tags_of: Any) -> Iterator[Access]:
    """Yield every permission of a request. `tags_of(arn)` are the tags of a resource that exists."""
    given = {tag["Key"]: tag["Value"] for tag in params.get("Tags", []) if isinstance(tag, dict)}
    about = _keys(params) | {f"aws:requesttag/{key.lower()}": (value,) for key, value in given.items()}
    if given:
        about["aws:tagkeys"] = tuple(given)
    action = f"sagemaker:{operation}"
    for resource in resources(operation, params, region):
        keys = {**about, **_tag_keys(tags_of(_tagged(resource)))}
        yield Access(action, resource, keys)
        if given and operation != "AddTags":
            yield Access("sagemaker:AddTags", resource, {**keys, "sagemaker:taggingaction": (operation,)})
    for role in roles(params):
        yield Access("iam:PassRole", role, {"iam:passedtoservice": (SERVICE,)})


def resources(operation: str, params: Document, region: str) -> list[str]:
    """Return the ARNs that a request is about; "*" for those that cannot be narrowed."""
    if operation.startswith(_UNNARROWED) and operation != "ListTags":
        return ["*"]
    if "ResourceArn" in params:  # tags
        return [str(params["ResourceArn"])]
    noun = next((noun for noun in _KINDS if noun in operation), None)
    if noun is None:
        return ["*"]
    return [
        _arn(each, params, region) for each in (noun, *_ALSO.get(operation, ())) if _has(each, params)
    ] or [f"arn:aws:sagemaker:{region}:{ACCOUNT_ID}:{_KINDS[noun]}/*"]


def _tagged(resource: str) -> str:
    """Return the resource whose tags count: a version of a model package has those of its group."""
    start, kind, name = resource.partition(":model-package/")
    return f"{start}:model-package-group/{name.rpartition('/')[0]}" if kind and "/" in name else resource


def roles(params: Document) -> list[str]:
    """Return the roles that a request hands to SageMaker."""
    definitions = [params.get("TrainingJobDefinition"), *params.get("TrainingJobDefinitions", [])]
    found = [
        part[member]
        for part in (params, *definitions)
        if isinstance(part, dict)
        for member in ("RoleArn", "ExecutionRoleArn")
        if part.get(member)
    ]
    return list(dict.fromkeys(found))


def _has(noun: str, params: Document) -> bool:
    return f"{noun}Name" in params or f"{noun}Arn" in params


def _arn(noun: str, params: Document, region: str) -> str:
    name = str(params.get(f"{noun}Arn") or params.get(f"{noun}Name"))
    return (
        name if name.startswith("arn:") else f"arn:aws:sagemaker:{region}:{ACCOUNT_ID}:{_KINDS[noun]}/{name}"
    )


def _tag_keys(tags: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {
        f"{prefix}:resourcetag/{key.lower()}": (value,)
        for key, value in tags.items()
        for prefix in ("aws", "sagemaker")
    }


def _keys(params: Document) -> dict[str, tuple[str, ...]]:
    """SageMaker's own condition keys: they are looked for wherever a request may have them."""
    types: list[str] = []
    found: dict[str, list[str]] = {}
    for member, value in _members(params):
        key = _CONDITION_KEYS.get(member)
        if member == "InstanceType":
            types.append(str(value))
        elif key:
            values = value if isinstance(value, list) else [value]
            found.setdefault(key, []).extend(_text(each) for each in values)
    if types:
        found["sagemaker:instancetypes"] = types
    if "sagemaker:networkisolation" not in found:
        found["sagemaker:networkisolation"] = ["false"]
    return {key: tuple(dict.fromkeys(values)) for key, values in found.items()}


_CONDITION_KEYS = {
    "KeepAlivePeriodInSeconds": "sagemaker:keepaliveperiod",
    "EnableNetworkIsolation": "sagemaker:networkisolation",
    "EnableInterContainerTrafficEncryption": "sagemaker:intercontainertrafficencryption",
    "Subnets": "sagemaker:vpcsubnets",
    "SecurityGroupIds": "sagemaker:vpcsecuritygroupids",
    "VolumeKmsKeyId": "sagemaker:volumekmskey",
    "KmsKeyId": "sagemaker:outputkmskey",
    "ModelApprovalStatus": "sagemaker:modelapprovalstatus",
}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _members(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for member, value in node.items():
            yield member, value
            yield from _members(value)
    elif isinstance(node, list):
        for value in node:
            yield from _members(value)
