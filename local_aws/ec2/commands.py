"""Run Command: send AWS-RunShellScript to instances and report the invocations."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import datetime

from local_aws.ec2.instance import Instance, tags_of
from local_aws.ec2.rollout import DEFAULT_CONCURRENCY, DEFAULT_ERRORS, Rollout, limits
from local_aws.ec2.run_command import DEFAULT_EXECUTION_SECONDS, ENDED, KIND, Script, output_key
from local_aws.ec2.running import Running, operation
from local_aws.errors import AwsError
from local_aws.gateway.json_service import Call, Document
from local_aws.gateway.responses import iso_time
from local_aws.settings import ACCOUNT_ID
from local_aws.state.resources import Missing, Query, Resource

COMMAND_KIND = "ssm-command"
DOCUMENT = "AWS-RunShellScript"
PLUGIN = "aws:runShellScript"
DELIVERY_SECONDS = 3600
LONGEST_EXECUTION_SECONDS = 172_800
_UNSUPPORTED_MEMBERS = ("NotificationConfig", "AlarmConfiguration")
"""They would have effects that a caller relies on: a notification that is never sent must not be promised."""


@operation("SendCommand")
def send_command(call: Call) -> Document:
    """Record the command for its instances and start it on each."""
    params = call.params
    if params["DocumentName"].rpartition("/")[2] != DOCUMENT:
        raise AwsError(
            "InvalidDocument",
            f"Document {params['DocumentName']} is not supported by local_aws: use {DOCUMENT}.",
        )
    for member in _UNSUPPORTED_MEMBERS:
        if member in params:
            raise AwsError(
                "UnsupportedOperation", f"{member} is not supported by local_aws: leave it out.", 501
            )
    script = _script(call)
    instances = _targets(call)
    now = time.time()
    delivery = params.get("TimeoutSeconds", DELIVERY_SECONDS)
    document: Document = {
        **{member: value for member, value in params.items() if member != "TimeoutSeconds"},
        "CommandId": script.command_id,
        "InstanceIds": params.get("InstanceIds", []),
        "Targets": params.get("Targets", []),
        "RequestedDateTime": now,
        "TimeoutSeconds": delivery,
        "ExpiresAfter": now + delivery + script.execution_seconds,
        "MaxConcurrency": params.get("MaxConcurrency", DEFAULT_CONCURRENCY),
        "MaxErrors": params.get("MaxErrors", DEFAULT_ERRORS),
        "Parameters": params.get("Parameters", {}),
        "DocumentVersion": params.get("DocumentVersion", "$DEFAULT"),
        "Comment": params.get("Comment", ""),
    }
    store, region = call.context.store, call.region
    store.create(
        Resource(
            COMMAND_KIND,
            region,
            script.command_id,
            call.arn(f"command/{script.command_id}", "ssm"),
            document,
            now,
        )
    )
    for instance in instances:
        name = f"{script.command_id}/{instance.id}"
        record: Document = {
            "InstanceId": instance.id,
            "Status": "Pending",
            "StatusDetails": "Pending",
            "ResponseCode": -1,
        }
        arn = call.arn(f"command/{name}", "ssm")
        store.create(Resource(KIND, region, name, arn, record, now, parent=script.command_id))
    Rollout(instances, script, limits(params, len(instances), now + delivery))
    return {"Command": _command(call, store.get(COMMAND_KIND, region, script.command_id))}


@operation("GetCommandInvocation")
def get_command_invocation(call: Call) -> Document:
    """Describe a command on one instance."""
    params = call.params
    command = _get_command(call, params["CommandId"])
    try:
        found = call.context.store.get(KIND, call.region, f"{params['CommandId']}/{params['InstanceId']}")
    except Missing:
        raise AwsError("InvocationDoesNotExist", "") from None
    if params.get("PluginName", PLUGIN) not in (PLUGIN, "aws:RunShellScript", "awsrunShellScript"):
        raise AwsError("InvalidPluginName", f"The plugin {params['PluginName']} is not valid.")
    document = found.document
    urls = _urls(call, command.document, document["InstanceId"])
    begun, ended = document.get("Begun"), document.get("Ended")
    return {
        "CommandId": command.name,
        "InstanceId": document["InstanceId"],
        "Comment": command.document["Comment"],
        "DocumentName": command.document["DocumentName"],
        "DocumentVersion": command.document["DocumentVersion"],
        "PluginName": PLUGIN,
        "ResponseCode": document["ResponseCode"],
        "ExecutionStartDateTime": "" if begun is None else iso_time(begun),
        "ExecutionElapsedTime": f"PT{ended - begun:.3f}S" if begun and ended else "",
        "ExecutionEndDateTime": "" if ended is None else iso_time(ended),
        "Status": document["Status"],
        "StatusDetails": document["StatusDetails"],
        "StandardOutputContent": document.get("Stdout", ""),
        "StandardOutputUrl": urls[0],
        "StandardErrorContent": document.get("Stderr", ""),
        "StandardErrorUrl": urls[1],
        "CloudWatchOutputConfig": command.document.get("CloudWatchOutputConfig", {}),
    }


@operation("ListCommands")
def list_commands(call: Call) -> Document:
    """Commands, newest first, by id, instance and filters."""
    params = call.params
    wanted = _command_filter(params)
    on_instance = params.get("InstanceId")

    def keep(resource: Resource) -> bool:
        command = _command(call, resource)
        invocations = _invocations(call, resource.name)
        return wanted(command) and (
            on_instance is None or any(i.document["InstanceId"] == on_instance for i in invocations)
        )

    found, token = _page(call, COMMAND_KIND, params.get("CommandId"), keep)
    return {"Commands": [_command(call, resource) for resource in found], **token}


@operation("ListCommandInvocations")
def list_command_invocations(call: Call) -> Document:
    """Commands on instances, newest first; with Details, their plugins and output."""
    params = call.params
    wanted = _command_filter(params)

    def keep(resource: Resource) -> bool:
        if params.get("CommandId") not in (None, resource.parent):
            return False
        if params.get("InstanceId") not in (None, resource.document["InstanceId"]):
            return False
        return wanted({**_summary(call, resource), "Status": resource.document["Status"]})

    if "CommandId" in params:
        _get_command(call, params["CommandId"])
    found, token = _page(call, KIND, None, keep)
    details = params.get("Details", False)
    entries = [
        {**_summary(call, item), "CommandPlugins": [_plugin(call, item)] if details else []} for item in found
    ]
    return {"CommandInvocations": entries, **token}


@operation("CancelCommand")
def cancel_command(call: Call) -> None:
    """End a command early on all or some of its instances."""
    _get_command(call, call.params["CommandId"])
    wanted = call.params.get("InstanceIds")
    for invocation in _invocations(call, call.params["CommandId"]):
        if not wanted or invocation.document["InstanceId"] in wanted:
            call.context.part(Running).cancel(call.context, call.region, invocation.name)


def _script(call: Call) -> Script:
    params = call.params
    given = params.get("Parameters", {})
    unknown = sorted(set(given) - {"commands", "workingDirectory", "executionTimeout"})
    if unknown or not given.get("commands"):
        what = f"unknown parameters {unknown}" if unknown else "commands are missing"
        raise AwsError("InvalidParameters", f"Parameters of {DOCUMENT} are wrong: {what}.")
    seconds = (given.get("executionTimeout") or [str(DEFAULT_EXECUTION_SECONDS)])[0]
    if not seconds.isdigit() or not 1 <= int(seconds) <= LONGEST_EXECUTION_SECONDS:
        raise AwsError(
            "InvalidParameters", f"executionTimeout must be 1 to {LONGEST_EXECUTION_SECONDS} seconds."
        )
    output = params.get("CloudWatchOutputConfig", {})
    group = output.get("CloudWatchLogGroupName") or f"/aws/ssm/{DOCUMENT}"
    bucket = params.get("OutputS3BucketName")
    return Script(
        command_id=str(uuid.uuid4()),
        commands=tuple(given["commands"]),
        working_directory=(given.get("workingDirectory") or [""])[0],
        execution_seconds=float(seconds),
        s3=(bucket, params.get("OutputS3KeyPrefix", "")) if bucket else None,
        log_group=group if output.get("CloudWatchOutputEnabled") else "",
    )


def _targets(call: Call) -> list[Instance]:
    params = call.params
    running = {instance.id: instance for instance in call.context.part(Running).on.running(call.region)}
    ids = list(dict.fromkeys(params.get("InstanceIds", [])))
    if len(ids) != len(params.get("InstanceIds", [])):
        raise AwsError(
            "DuplicateInstanceId", "You cannot specify an instance ID in more than one association."
        )
    if bool(ids) == bool(params.get("Targets")):
        raise AwsError("InvalidParameters", "Give either InstanceIds or Targets.")
    missing = [name for name in ids if name not in running]
    if missing:
        listed = ", ".join(missing)
        raise AwsError(
            "InvalidInstanceId", f"Instances [[{listed}]] not in a valid state for account {ACCOUNT_ID}"
        )
    if ids:
        return [running[name] for name in ids]
    return [
        instance
        for instance in running.values()
        if all(_is_target(call, instance, target["Key"], target["Values"]) for target in params["Targets"])
    ]


def _is_target(call: Call, instance: Instance, key: str, values: list[str]) -> bool:
    if key == "InstanceIds":
        return instance.id in values
    if key.startswith("tag:"):
        return tags_of(call.region, instance.id).get(key[4:]) in values
    if key == "tag-key":
        return bool(set(tags_of(call.region, instance.id)) & set(values))
    raise AwsError(
        "InvalidParameters",
        f"local_aws knows the target keys InstanceIds, tag:<name> and tag-key, not {key}.",
    )


def _get_command(call: Call, command_id: str) -> Resource:
    try:
        return call.context.store.get(COMMAND_KIND, call.region, command_id)
    except Missing:
        raise AwsError("InvalidCommandId", "") from None


def _invocations(call: Call, command_id: str) -> list[Resource]:
    return call.context.store.all(KIND, call.region, parent=command_id)


def _command(call: Call, resource: Resource) -> Document:
    """Return a command with the status derived from its invocations."""
    invocations = _invocations(call, resource.name)
    states = [invocation.document["Status"] for invocation in invocations]
    status = command_status(states)
    return {
        **resource.document,
        "Status": status,
        "StatusDetails": "ExecutionTimedOut" if status == "TimedOut" else status,
        "TargetCount": len(states),
        "CompletedCount": sum(state in ENDED for state in states),
        "ErrorCount": sum(state in ("Failed", "TimedOut") for state in states),
        "DeliveryTimedOutCount": sum(i.document["StatusDetails"] == "DeliveryTimedOut" for i in invocations),
    }


def command_status(states: list[str]) -> str:
    """Return a command's status from those of its invocations."""
    if not states:
        return "Success"
    if any(state not in ENDED for state in states):
        return "Pending" if all(state == "Pending" for state in states) else "InProgress"
    for worst in ("Failed", "TimedOut", "Cancelled"):
        if worst in states:
            return worst
    return "Success"


def _summary(call: Call, resource: Resource) -> Document:
    command = _get_command(call, resource.parent).document
    urls = _urls(call, command, resource.document["InstanceId"])
    return {
        "CommandId": resource.parent,
        "InstanceId": resource.document["InstanceId"],
        "InstanceName": _name_of(call, resource.document["InstanceId"]),
        "Comment": command["Comment"],
        "DocumentName": command["DocumentName"],
        "DocumentVersion": command["DocumentVersion"],
        "RequestedDateTime": command["RequestedDateTime"],
        "Status": resource.document["Status"],
        "StatusDetails": resource.document["StatusDetails"],
        "StandardOutputUrl": urls[0],
        "StandardErrorUrl": urls[1],
        "CloudWatchOutputConfig": command.get("CloudWatchOutputConfig"),
    }


def _name_of(call: Call, instance_id: str) -> str:
    return tags_of(call.region, instance_id).get("Name", "")


def _plugin(call: Call, resource: Resource) -> Document:
    document = resource.document
    command = _get_command(call, resource.parent).document
    output = document.get("Stdout", "")
    if document.get("Stderr"):
        output += f"\n----------ERROR-------\n{document['Stderr']}"
    return {
        "Name": PLUGIN,
        "Status": document["Status"],
        "StatusDetails": document["StatusDetails"],
        "ResponseCode": document["ResponseCode"],
        "ResponseStartDateTime": document.get("Begun"),
        "ResponseFinishDateTime": document.get("Ended"),
        "Output": output[:2500],
        "OutputS3BucketName": command.get("OutputS3BucketName"),
        "OutputS3KeyPrefix": command.get("OutputS3KeyPrefix"),
    }


def _urls(call: Call, command: Document, instance_id: str) -> tuple[str, str]:
    bucket = command.get("OutputS3BucketName")
    if not bucket:
        return "", ""
    prefix = command.get("OutputS3KeyPrefix", "")
    keys = [output_key(prefix, command["CommandId"], instance_id, stream) for stream in ("stdout", "stderr")]
    first, second = (f"https://s3.{call.region}.amazonaws.com/{bucket}/{key}" for key in keys)
    return first, second


def _command_filter(params: Document) -> Callable[[Document], bool]:
    filters = {item["key"]: item["value"] for item in params.get("Filters", [])}

    def keep(command: Document) -> bool:
        when = command["RequestedDateTime"]
        checks = {
            "Status": lambda value: command["Status"] == value,
            "ExecutionStage": lambda value: (command["Status"] in ENDED) == (value == "Complete"),
            "DocumentName": lambda value: command["DocumentName"] == value,
            "InvokedAfter": lambda value: when > _seconds(value),
            "InvokedBefore": lambda value: when < _seconds(value),
        }
        return all(checks[key](value) for key, value in filters.items())

    return keep


def _page(
    call: Call, kind: str, name: str | None, keep: Callable[[Resource], bool]
) -> tuple[list[Resource], Document]:
    if name is not None:
        return [resource for resource in [_get_command(call, name)] if keep(resource)], {}
    limit = call.params.get("MaxResults", 50)
    parent = call.params.get("CommandId", "") if kind == KIND else ""
    found: list[Resource] = []
    token = call.params.get("NextToken", "")
    while True:
        query = Query(kind, call.region, parent=parent, limit=limit - len(found), token=token)
        page = call.context.store.page(query)
        found += [resource for resource in page.resources if keep(resource)]
        token = page.next_token
        if not token or len(found) == limit:
            return found, ({"NextToken": token} if token else {})


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
