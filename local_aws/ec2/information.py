"""DescribeInstanceInformation: the instances that Run Command reaches."""

from __future__ import annotations

import time

from local_aws.ec2.instance import Instance, moto_instance, tags_of
from local_aws.ec2.running import Running, operation
from local_aws.errors import AwsError
from local_aws.gateway.json_service import Call, Document, page


@operation("DescribeInstanceInformation")
def describe_instance_information(call: Call) -> Document:
    """List the running instances, which are all that Run Command reaches."""
    params = call.params
    filters = {item["Key"]: item["Values"] for item in params.get("Filters", [])}
    filters |= {item["key"]: item["valueSet"] for item in params.get("InstanceInformationFilterList", [])}
    entries = []
    for instance in call.context.part(Running).on.running(call.region):
        entry = _information(call, instance)
        if all(_matches(call, entry, key, values) for key, values in filters.items()):
            entries.append(entry)
    limit, token = params.get("MaxResults", 50), params.get("NextToken")
    return page("InstanceInformationList", entries, token, limit, "NextToken")


def _information(call: Call, instance: Instance) -> Document:
    record = moto_instance(call.region, instance.id)
    return {
        "InstanceId": instance.id,
        "PingStatus": "Online",
        "LastPingDateTime": time.time(),
        "AgentVersion": "3.3.0.0",
        "IsLatestVersion": True,
        "PlatformType": "Linux",
        "PlatformName": "Amazon Linux",
        "PlatformVersion": "2023",
        "ResourceType": "EC2Instance",
        "IPAddress": str(record.private_ip),
        "ComputerName": str(record.private_dns_name),
    }


def _matches(call: Call, entry: Document, key: str, values: list[str]) -> bool:
    members = {
        "InstanceIds": "InstanceId",
        "PingStatus": "PingStatus",
        "PlatformTypes": "PlatformType",
        "AgentVersion": "AgentVersion",
        "ResourceType": "ResourceType",
    }
    if key in members:
        return entry[members[key]] in values
    if key.startswith("tag:"):
        return tags_of(call.region, entry["InstanceId"]).get(key[4:]) in values
    raise AwsError("InvalidFilterKey", f"local_aws does not filter instances by {key}.")
