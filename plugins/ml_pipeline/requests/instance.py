"""RunInstances and SendCommand: an instance of the EC2 branch and its command."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from ml_pipeline.requests.types import Document, Tags

DOCUMENT = "AWS-RunShellScript"
LOG_GROUP = "/ml-pipeline/instances"
# AWS-RunShellScript takes no longer executionTimeout.
LONGEST_HOURS = 48


@dataclass(frozen=True)
class Instance:
    """An instance that runs one training and terminates.

    Attributes:
        name: Name tag and ClientToken: the same name never starts a second instance.
        instance_type: "m5.xlarge", without "ml.".
        lifetime_minutes: The instance terminates itself after this, even if Airflow is gone.
        volume_gb: Its disk.
        profile: Instance profile that may read and write the bucket and be managed by SSM.
    """

    name: str
    image_id: str
    instance_type: str
    profile: str
    security_group_id: str
    subnet_id: str | None = None
    lifetime_minutes: int = 240
    volume_gb: int = 60

    def __post_init__(self) -> None:
        if self.instance_type.startswith("ml."):
            raise ValueError(
                f"EC2 has no {self.instance_type}; write {self.instance_type.removeprefix('ml.')}"
            )
        if not 1 <= self.lifetime_minutes <= 7 * 24 * 60:
            raise ValueError(f"lifetime_minutes is {self.lifetime_minutes}; choose 1 to 10080")


def run_instances(instance: Instance, tags: Tags) -> Document:
    """Build the request of RunInstances: IMDSv2 only, no key pair, a timer that terminates the instance."""
    request: Document = {
        "ClientToken": instance.name,
        "MinCount": 1,
        "MaxCount": 1,
        "ImageId": instance.image_id,
        "InstanceType": instance.instance_type,
        "IamInstanceProfile": {"Name": instance.profile},
        "SecurityGroupIds": [instance.security_group_id],
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpEndpoint": "enabled",
            "HttpPutResponseHopLimit": 1,
        },
        "InstanceInitiatedShutdownBehavior": "terminate",
        # boto3 encodes it.
        "UserData": f"#!/bin/bash\nshutdown -h +{instance.lifetime_minutes}\n",
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {
                    "VolumeSize": instance.volume_gb,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        "TagSpecifications": [
            {
                "ResourceType": kind,
                "Tags": [*map(dict, tags), {"Key": "Name", "Value": instance.name}],
            }
            for kind in ("instance", "volume")
        ],
    }
    if instance.subnet_id:
        request["SubnetId"] = instance.subnet_id
    return request


def security_group(name: str, vpc_id: str | None = None) -> Document:
    """Build the request of CreateSecurityGroup; a new group has no inbound rule, and none is added."""
    request = {"GroupName": name, "Description": "ml-pipeline: training machines, no inbound traffic"}
    return {**request, "VpcId": vpc_id} if vpc_id else request


def send_command(
    name: str,
    instance_id: str,
    code_uri: str,
    job_uri: str,
    bucket: str,
    timeout_seconds: int,
    region: str,
) -> Document:
    """Build the request of SendCommand that trains job `name`.

    Args:
        name: Name of the training job.
        instance_id: Instance to run it on.
        code_uri: The code archive.
        job_uri: job.json, see `on_instance`.
        bucket: Bucket that receives the output of the command.
        timeout_seconds: executionTimeout; the document's own default would be one hour.
        region: AWS region of the bucket.
    """
    return {
        "DocumentName": DOCUMENT,
        "InstanceIds": [instance_id],
        "Comment": name,
        "TimeoutSeconds": 600,
        "Parameters": {
            "commands": script(name, code_uri, job_uri, region).splitlines(),
            "executionTimeout": [str(timeout_seconds)],
        },
        "OutputS3BucketName": bucket,
        "OutputS3KeyPrefix": f"jobs/{name}/command",
        "CloudWatchOutputConfig": {
            "CloudWatchLogGroupName": LOG_GROUP,
            "CloudWatchOutputEnabled": True,
        },
    }


def script(name: str, code_uri: str, job_uri: str, region: str) -> str:
    """Return the shell script of the command.

    A second command of the same name waits for the first, then finds the marker and does nothing.
    """
    bucket, _, key = code_uri.removeprefix("s3://").partition("/")
    fetch = f"import boto3; boto3.client('s3').download_file({bucket!r}, {key!r}, 'code.tar.gz')"
    return f"""set -eu
export AWS_DEFAULT_REGION={region}
work="${{HOME:-/root}}/ml-pipeline/{name}"
mkdir -p "$work"
cd "$work"
exec 9>lock
flock 9
if [ -f done ]; then echo "done already"; exit 0; fi
python=python3
if [ -x /opt/pytorch/bin/python ]; then python=/opt/pytorch/bin/python; fi
"$python" -c {shlex.quote(fetch)}
tar -xzf code.tar.gz
"$python" on_instance.py {shlex.quote(job_uri)}
touch done"""
