"""Derive the permissions of requests to EC2, SSM, Logs and the services that moto implements.

A resource is named only where the policies of a least-privilege role would name it; any other request needs its
action on "*", which is denied to any principal with less than full access: errors fall on the side of denial.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from local_aws.iam.policy import Access
from local_aws.settings import ACCOUNT_ID

Document = Mapping[str, Any]
Tags = Mapping[str, str]

PREFIXES = {"monitoring": "cloudwatch"}
"""Signing name -> IAM's name of a service, where they differ."""
_ARNS = {
    ("sqs", "QueueUrl"): "{last}",
    ("sqs", "QueueName"): "{value}",
    ("sns", "TopicArn"): "",
    ("sns", "TargetArn"): "",
    ("logs", "logGroupName"): "log-group:{value}",
    ("cloudwatch", "AlarmName"): "alarm:{value}",
    ("iam", "RoleName"): "role/{value}",
    ("iam", "PolicyArn"): "",
    ("iam", "UserName"): "user/{value}",
    ("sts", "RoleArn"): "",
    ("ecr", "repositoryName"): "repository/{value}",
    ("events", "Name"): "rule/{value}",
    ("events", "Rule"): "rule/{value}",
}
"""(service, parameter) -> the resource in the ARN; "" where the parameter is the ARN. `{last}`: behind its last /."""
_BATCHES = {
    "DeleteMessageBatch": "DeleteMessage",
    "SendMessageBatch": "SendMessage",
    "PublishBatch": "Publish",
}
"""Operations that IAM knows by another name."""
_FREE = {"sts:GetCallerIdentity"}
"""Anyone may."""


def needs(service: str, operation: str, params: Document, region: str, tags_of: Any) -> Iterator[Access]:
    """Yield every permission of a request. `tags_of(instance id)` are an instance's tags."""
    prefix = PREFIXES.get(service, service)
    action = f"{prefix}:{_BATCHES.get(operation, operation)}"
    if action in _FREE:
        return
    special = _SPECIAL.get(action)
    if special is not None:
        yield from special(action, params, region, tags_of)
    elif prefix == "application-autoscaling" and not operation.startswith("Describe"):
        keys = {
            "application-autoscaling:service-namespace": (str(params.get("ServiceNamespace")),),
            "application-autoscaling:scalable-dimension": (str(params.get("ScalableDimension")),),
        }
        yield Access(action, _arn(prefix, region, "scalable-target/*"), keys)
    else:
        for resource in _resources(prefix, operation, params, region):
            yield Access(action, resource, _request_keys(prefix, params))


def _resources(prefix: str, operation: str, params: Document, region: str) -> list[str]:
    if prefix == "cloudwatch" and operation == "DeleteAlarms":
        return [_arn(prefix, region, f"alarm:{name}") for name in _alarm_names(params)]
    if prefix == "kms" and (params.get("KeyId") or params.get("CiphertextBlob")):
        return [_arn(prefix, region, f"key/{_key_id(params, region)}")]
    if prefix in ("cloudwatch", "ec2") and operation.startswith(("Describe", "Get", "List")):
        return ["*"]
    for (service, parameter), form in _ARNS.items():
        if service == prefix and params.get(parameter):
            value = str(params[parameter])
            if not form or value.startswith("arn:"):
                return [value]
            name = form.format(value=value, last=value.rpartition("/")[2])
            return [_arn(prefix, "" if prefix == "iam" else region, name) + _stream(params)]
    return ["*"]


def _stream(params: Document) -> str:
    return f":log-stream:{params['logStreamName']}" if "logStreamName" in params else ""


def _key_id(params: Document, region: str) -> str:
    """Return the id of the key that a request names by id, alias or ARN, or that its ciphertext begins with."""
    from moto.kms.models import kms_backends

    if params.get("KeyId"):
        return str(kms_backends[ACCOUNT_ID][region].any_id_to_key_id(str(params["KeyId"])))
    try:
        return base64.b64decode(str(params["CiphertextBlob"]))[:36].decode("ascii")
    except ValueError:
        return ""


def _alarm_names(params: Document) -> list[str]:
    listed = params.get("AlarmNames")
    if isinstance(listed, list):
        return [str(name) for name in listed]
    return [str(value) for key, value in params.items() if key.startswith("AlarmNames.member.")]


def _request_keys(prefix: str, params: Document) -> dict[str, tuple[str, ...]]:
    keys = {
        "cloudwatch:namespace": params.get("Namespace"),
        "iam:awsservicename": params.get("AWSServiceName"),
        "sts:externalid": params.get("ExternalId"),
        "sts:rolesessionname": params.get("RoleSessionName"),
    }
    return {key: (str(value),) for key, value in keys.items() if value}


def _arn(service: str, region: str, resource: str, account: str = ACCOUNT_ID) -> str:
    return f"arn:aws:{service}:{region}:{account}:{resource}"


def _run_instances(action: str, params: Document, region: str, _tags: Any) -> Iterator[Access]:
    instance = _arn("ec2", region, "instance/*")
    tags = _specified_tags(params)
    keys = {f"aws:requesttag/{name.lower()}": (value,) for name, value in tags.items()}
    for key, parameter in (
        ("ec2:instancetype", "InstanceType"),
        ("ec2:metadatahttptokens", "MetadataOptions.HttpTokens"),
    ):
        if params.get(parameter):
            keys[key] = (str(params[parameter]),)
    profile = params.get("IamInstanceProfile.Name") or params.get("IamInstanceProfile.Arn")
    if profile:
        name = str(profile).rpartition("/")[2]
        keys["ec2:instanceprofile"] = (_arn("iam", "", f"instance-profile/{name}"),)
        for role in roles_of_profile(name):
            yield Access("iam:PassRole", role, {"iam:passedtoservice": ("ec2.amazonaws.com",)})
    yield Access(action, instance, keys)
    yield Access(action, _arn("ec2", region, f"image/{params.get('ImageId')}", account=""), {})
    for part in ("network-interface/*", "volume/*"):
        yield Access(action, _arn("ec2", region, part), {})
    if params.get("SubnetId"):
        yield Access(action, _arn("ec2", region, f"subnet/{params['SubnetId']}"), {})
    for group in [value for key, value in params.items() if key.startswith("SecurityGroupId.")]:
        yield Access(action, _arn("ec2", region, f"security-group/{group}"), {})
    if tags:
        yield Access("ec2:CreateTags", instance, {**keys, "ec2:createaction": ("RunInstances",)})


def roles_of_profile(name: str) -> list[str]:
    """Return the ARNs of the roles in an instance profile."""
    from moto.iam.models import iam_backends

    profiles = list(iam_backends[ACCOUNT_ID]["aws"].instance_profiles.values())
    return [role.arn for profile in profiles if profile.name == name for role in profile.roles]


def _specified_tags(params: Document) -> dict[str, str]:
    """Return the tags of `TagSpecification.1.Tag.1.Key=...` and so on."""
    return {
        str(value): str(params.get(key.removesuffix("Key") + "Value", ""))
        for key, value in params.items()
        if key.startswith("TagSpecification.") and key.endswith(".Key")
    }


def _on_instances(action: str, params: Document, region: str, tags_of: Any) -> Iterator[Access]:
    for key, name in params.items():
        if key.startswith("InstanceId."):
            yield _on_instance(action, str(name), region, tags_of(str(name)))


def _on_instance(action: str, name: str, region: str, tags: Tags) -> Access:
    keys = {f"aws:resourcetag/{key.lower()}": (value,) for key, value in tags.items()}
    return Access(action, _arn("ec2", region, f"instance/{name}"), keys)


def _create_group(action: str, params: Document, region: str, _tags: Any) -> Iterator[Access]:
    yield Access(action, _arn("ec2", region, "security-group/*"), {})
    yield Access(action, _arn("ec2", region, f"vpc/{params.get('VpcId', '*')}"), {})


def _send_command(action: str, params: Document, region: str, tags_of: Any) -> Iterator[Access]:
    document = str(params.get("DocumentName", ""))
    owner = "" if document.startswith("AWS-") else ACCOUNT_ID
    yield Access(action, _arn("ssm", region, f"document/{document}", owner), {})
    for name in params.get("InstanceIds", []):
        yield _on_instance(action, str(name), region, tags_of(str(name)))
    if params.get("Targets"):
        asked = {
            str(target.get("Key", ""))[4:]: str(target["Values"][0])
            for target in params["Targets"]
            if str(target.get("Key", "")).startswith("tag:") and len(target.get("Values", [])) == 1
        }
        yield _on_instance(action, "*", region, asked)


def _get_parameter(action: str, params: Document, region: str, _tags: Any) -> Iterator[Access]:
    name = str(params.get("Name", ""))
    owner = "" if name.startswith("/aws/service/") else ACCOUNT_ID
    yield Access(action, _arn("ssm", region, f"parameter/{name.lstrip('/')}", owner), {})


_SPECIAL: dict[str, Callable[[str, Document, str, Any], Iterator[Access]]] = {
    "ec2:RunInstances": _run_instances,
    "ec2:TerminateInstances": _on_instances,
    "ec2:StopInstances": _on_instances,
    "ec2:StartInstances": _on_instances,
    "ec2:RebootInstances": _on_instances,
    "ec2:CreateSecurityGroup": _create_group,
    "ssm:SendCommand": _send_command,
    "ssm:GetParameter": _get_parameter,
}
