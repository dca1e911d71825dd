"""EC2 and SSM over HTTP with boto3: instances run, commands execute, and the host is left alone."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError, WaiterError

from local_aws import cli
from local_aws.execution import processes
from tests.local_aws.cloud import Cloud, eventually, unique
from tests.local_aws.machines import ENDED, Machines


@pytest.fixture
def machines(cloud: Cloud) -> Iterator[Machines]:
    made = Machines(cloud)
    yield made
    if made.ids:
        made.ec2.terminate_instances(InstanceIds=made.ids)


def test_user_data_runs_in_its_own_folder(machines: Machines) -> None:
    name = machines.run('#!/bin/bash\necho "hello from $HOME"; id -u; echo done > "$HOME/marker"\n')
    eventually(lambda: (machines.folder(name) / "home" / "marker").exists())
    machines.ec2.get_waiter("instance_running").wait(InstanceIds=[name])
    expected = f"hello from {machines.folder(name) / 'home'}"

    def console() -> str:
        return str(machines.ec2.get_console_output(InstanceId=name).get("Output", ""))

    eventually(lambda: expected in console())
    machines.ec2.terminate_instances(InstanceIds=[name])
    assert machines.state(name) == "terminated"
    eventually(lambda: not machines.folder(name).exists())


def test_a_client_token_never_starts_a_second_instance(machines: Machines) -> None:
    token = uuid.uuid4().hex
    first = machines.run(ClientToken=token)
    again = machines.ec2.run_instances(
        ImageId=machines.image, InstanceType="m5.large", MinCount=1, MaxCount=1, ClientToken=token
    )
    assert [item["InstanceId"] for item in again["Instances"]] == [first]
    assert again["ReservationId"]
    with pytest.raises(ClientError) as error:
        machines.run(ClientToken=token, InstanceType="m5.xlarge")
    assert error.value.response["Error"]["Code"] == "IdempotentParameterMismatch"


def test_commands_run_and_tell_their_end(machines: Machines) -> None:
    name, other = machines.run(), machines.run()
    good = machines.shell(name, "echo out", "echo err >&2", "pwd")
    home = machines.folder(name) / "home"
    assert (good["Status"], good["ResponseCode"]) == ("Success", 0)
    assert good["StandardOutputContent"] == f"out\n{home}\n"
    assert good["StandardErrorContent"] == "err\n"
    bad = machines.shell(name, "exit 7")
    assert (bad["Status"], bad["ResponseCode"]) == ("Failed", 7)
    assert "exit status 7" in bad["StandardErrorContent"]
    there = machines.shell(name, "pwd", parameters={"workingDirectory": ["/usr"]})
    assert there["StandardOutputContent"] == "/usr\n"
    long = machines.shell(name, "yes | head -c 100000")
    assert len(long["StandardOutputContent"]) == 24_000
    with pytest.raises(ClientError) as error:
        machines.ssm.get_command_invocation(CommandId=good["CommandId"], InstanceId=other)
    assert error.value.response["Error"]["Code"] == "InvocationDoesNotExist"
    listed = machines.ssm.list_command_invocations(CommandId=bad["CommandId"], Details=True)[
        "CommandInvocations"
    ]
    assert [item["InstanceId"] for item in listed] == [name]
    assert listed[0]["CommandPlugins"][0]["ResponseCode"] == 7
    commands = machines.ssm.list_commands(InstanceId=name)["Commands"]
    assert [command["CommandId"] for command in commands][-1] == good["CommandId"]
    assert {command["CommandId"]: command["Status"] for command in commands}[bad["CommandId"]] == "Failed"
    assert machines.ssm.list_commands(InstanceId=other)["Commands"] == []


def test_limits_cancel_and_refusals(machines: Machines) -> None:
    name = machines.run()
    late = machines.shell(name, "sleep 60", parameters={"executionTimeout": ["1"]})
    assert (late["Status"], late["StatusDetails"]) == ("TimedOut", "ExecutionTimedOut")
    marker = machines.folder(name) / "home" / "pid"
    command = machines.send(name, "(sleep 300 & echo $! ; wait) > $HOME/pid")
    eventually(lambda: marker.exists() and marker.read_text().strip())
    machines.ssm.cancel_command(CommandId=command)
    assert machines.result(command, name)["Status"] == "Cancelled"
    waiter = machines.ssm.get_waiter("command_executed")
    with pytest.raises(WaiterError):
        waiter.wait(CommandId=command, InstanceId=name, WaiterConfig={"Delay": 1, "MaxAttempts": 2})
    for arguments, code in (
        ({"InstanceIds": ["i-0123456789abcdef0"]}, "InvalidInstanceId"),
        ({"InstanceIds": [name], "DocumentName": "AWS-RunPowerShellScript"}, "InvalidDocument"),
        ({"InstanceIds": [name], "Parameters": {}}, "InvalidParameters"),
    ):
        request: dict[str, Any] = {"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}}
        with pytest.raises(ClientError) as error:
            machines.ssm.send_command(**{**request, **arguments})
        assert error.value.response["Error"]["Code"] == code


def test_output_goes_to_s3_and_cloudwatch(machines: Machines) -> None:
    name, bucket = machines.run(), machines.cloud.bucket()
    group = f"/{unique('commands')}"
    result = machines.shell(
        name,
        "echo one; echo two >&2",
        OutputS3BucketName=bucket,
        OutputS3KeyPrefix="runs",
        CloudWatchOutputConfig={"CloudWatchLogGroupName": group, "CloudWatchOutputEnabled": True},
    )
    prefix = f"runs/{result['CommandId']}/{name}/awsrunShellScript/0.awsrunShellScript"
    body = machines.cloud.s3.get_object(Bucket=bucket, Key=f"{prefix}/stdout")["Body"].read()
    assert body == b"one\n"
    assert result["StandardOutputUrl"].endswith(f"{prefix}/stdout")
    logs = machines.cloud.client("logs")
    stream = f"{result['CommandId']}/{name}/aws-runShellScript/stderr"
    events = logs.get_log_events(logGroupName=group, logStreamName=stream)["events"]
    assert [event["message"] for event in events] == ["two"]


def test_targets_and_what_run_command_reaches(machines: Machines) -> None:
    tag = unique("fleet")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "fleet", "Value": tag}]}]
    ids = {machines.run(TagSpecifications=tags), machines.run(TagSpecifications=tags)}
    machines.run()
    sent = machines.ssm.send_command(
        DocumentName="AWS-RunShellScript",
        Targets=[{"Key": "tag:fleet", "Values": [tag]}],
        Parameters={"commands": ["true"]},
    )["Command"]

    def invocations() -> list[dict[str, Any]]:
        return list(machines.ssm.list_command_invocations(CommandId=sent["CommandId"])["CommandInvocations"])

    assert {item["InstanceId"] for item in invocations()} == ids
    eventually(lambda: all(item["Status"] == "Success" for item in invocations()))
    filters = [{"Key": "InstanceIds", "Values": list(ids)}]
    online = machines.ssm.describe_instance_information(Filters=filters)["InstanceInformationList"]
    assert {item["InstanceId"] for item in online} == ids
    assert {item["PingStatus"] for item in online} == {"Online"}


def fleet_results(machines: Machines, count: int, commands: list[str], **more: Any) -> dict[str, str]:
    """Send to a new fleet; instance -> status details, once all have ended."""
    tag = unique("fleet")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "fleet", "Value": tag}]}]
    ids = [machines.run(TagSpecifications=tags) for _ in range(count)]
    sent = machines.ssm.send_command(
        DocumentName="AWS-RunShellScript",
        Targets=[{"Key": "tag:fleet", "Values": [tag]}],
        Parameters={"commands": commands},
        **more,
    )["Command"]

    def look() -> Any:
        listed = machines.ssm.list_command_invocations(CommandId=sent["CommandId"])["CommandInvocations"]
        return listed if all(item["Status"] in ENDED for item in listed) else None

    found = {item["InstanceId"]: item["StatusDetails"] for item in eventually(look)}
    assert set(found) == set(ids)
    return found


def test_commands_spread_at_the_rate_asked_for(machines: Machines) -> None:
    bucket = machines.cloud.bucket()
    # Each instance sees how many others are at work: S3 is what they share.
    script = """python3 - <<'END'
import boto3, os, time, uuid
s3 = boto3.client("s3", aws_access_key_id="any", aws_secret_access_key="any")
key = "at-work/" + uuid.uuid4().hex
s3.put_object(Bucket="BUCKET", Key=key)
assert s3.list_objects_v2(Bucket="BUCKET", Prefix="at-work/")["KeyCount"] == 1
s3.delete_object(Bucket="BUCKET", Key=key)
END""".replace("BUCKET", bucket)
    found = fleet_results(machines, 3, [script], MaxConcurrency="1")
    assert set(found.values()) == {"Success"}


def test_too_many_errors_end_a_command(machines: Machines) -> None:
    found = fleet_results(machines, 4, ["exit 1"], MaxConcurrency="25%", MaxErrors="1")
    assert sorted(found.values()) == ["Failed", "Failed", "Terminated", "Terminated"]


def test_cancelling_reaches_instances_that_still_wait(machines: Machines) -> None:
    tag = unique("fleet")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "fleet", "Value": tag}]}]
    for _ in range(3):
        machines.run(TagSpecifications=tags)
    command = machines.ssm.send_command(
        DocumentName="AWS-RunShellScript",
        Targets=[{"Key": "tag:fleet", "Values": [tag]}],
        Parameters={"commands": ["sleep 300"]},
        MaxConcurrency="1",
    )["Command"]["CommandId"]
    machines.ssm.cancel_command(CommandId=command)

    def states() -> list[str]:
        listed = machines.ssm.list_command_invocations(CommandId=command)["CommandInvocations"]
        return [item["StatusDetails"] for item in listed]

    eventually(lambda: states() == ["Cancelled"] * 3)


def test_what_a_command_cannot_promise_is_refused(machines: Machines) -> None:
    topic = {"NotificationArn": "arn:aws:sns:us-east-1:123456789012:t", "NotificationEvents": ["All"]}
    name = machines.run()
    with pytest.raises(ClientError, match="NotificationConfig is not supported by local_aws"):
        machines.send(name, "true", NotificationConfig=topic)


@pytest.mark.parametrize(("behaviour", "state"), [("terminate", "terminated"), ("stop", "stopped")])
def test_shutdown_from_inside(machines: Machines, behaviour: str, state: str) -> None:
    name = machines.run("#!/bin/sh\nshutdown -h +240\n", InstanceInitiatedShutdownBehavior=behaviour)
    machines.shell(name, "shutdown -c")
    assert machines.state(name) == "running"
    machines.send(name, "sudo shutdown -h now; sleep 100")
    eventually(lambda: machines.state(name) == state)


def test_status_tells_of_instances(machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "worker"}]}]
    name = machines.run("#!/bin/sh\ntouch $HOME/up; exec sleep 300\n", TagSpecifications=tags)
    eventually((machines.folder(name) / "home" / "up").exists)
    assert cli.main(["status", "--state", str(machines.cloud.state)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if name in line)
    assert re.search(rf"{name} worker +running for \d+ s, pids \d+, SSM Online", line)


def test_terminate_kills_what_runs(machines: Machines) -> None:
    name = machines.run()
    host_pid = machines.folder(name) / "home" / "up"
    command = machines.send(name, "touch $HOME/up; exec sleep 300")
    eventually(host_pid.exists)
    groups = [p for p in psutil.process_iter() if name in " ".join(safe_cmdline(p))]
    assert groups
    machines.ec2.terminate_instances(InstanceIds=[name])
    assert machines.result(command, name)["Status"] == "Failed"
    eventually(lambda: not [p for p in psutil.process_iter() if name in " ".join(safe_cmdline(p))])


def safe_cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_the_host_is_out_of_reach(machines: Machines, tmp_path: Path) -> None:
    name = machines.run()
    for program in ("apt-get install -y x", "systemctl start docker", "pip install x", "mount /a /b"):
        result = machines.shell(name, program)
        assert result["Status"] == "Failed"
        assert "refused by local_aws" in result["StandardErrorContent"]
    if not processes.namespaces_supported():
        pytest.skip("without mount namespaces only the shims protect the host")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    result = machines.shell(
        name,
        f"echo x > {victim} && echo wrote",
        "touch /usr/touched /etc/touched && echo wrote",
        f"kill -9 {os.getpid()} && echo killed",
        f"ls {machines.cloud.state} | grep -v instances && echo saw",
        "touch $HOME/ok /tmp/ok && echo fine",
    )
    assert result["StandardOutputContent"] == "fine\n"
    assert victim.read_text() == "mine"


METADATA = """
python3 - <<'END'
import json, os, urllib.error, urllib.request, boto3
base = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] + "latest/"
lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
ask = urllib.request.Request(base + "api/token", method="PUT", headers=lifetime)
token = urllib.request.urlopen(ask).read().decode()
def get(path):
    request = urllib.request.Request(base + path, headers={"X-aws-ec2-metadata-token": token})
    return urllib.request.urlopen(request).read().decode()
try:
    refused = urllib.request.urlopen(base + "meta-data/instance-id").status
except urllib.error.HTTPError as error:
    refused = error.code
arn = boto3.client("sts").get_caller_identity()["Arn"]
region = json.loads(get("dynamic/instance-identity/document"))["region"]
print(json.dumps([get("meta-data/instance-id"), refused, arn, region]))
END
"""


def test_instance_metadata_and_the_role(machines: Machines) -> None:
    iam, role = machines.cloud.client("iam"), unique("role")
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=document)
    iam.create_instance_profile(InstanceProfileName=role)
    iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
    name = machines.run(IamInstanceProfile={"Name": role})
    result = machines.shell(name, METADATA)
    assert result["Status"] == "Success", result["StandardErrorContent"]
    found, refused, arn, region = json.loads(result["StandardOutputContent"])
    assert (found, refused, region) == (name, 401, "us-east-1")
    assert arn.endswith(f"assumed-role/{role}/{name}")


@pytest.mark.slow
def test_instances_come_back_and_commands_get_a_truthful_end(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud()
    machines = Machines(cloud)
    token = uuid.uuid4().hex
    name = machines.run('#!/bin/sh\necho ran >> "$HOME/boots"\n', ClientToken=token)
    boots = machines.folder(name) / "home" / "boots"
    eventually(boots.exists)
    command = machines.send(name, "sleep 300")
    cloud.kill()
    cloud.start()
    again = Machines(cloud)
    assert again.run('#!/bin/sh\necho ran >> "$HOME/boots"\n', ClientToken=token) == name
    result = again.result(command, name)
    assert result["Status"] == "Failed"
    assert "local_aws ended" in result["StandardErrorContent"]
    assert again.shell(name, "cat $HOME/boots")["StandardOutputContent"] == "ran\n"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "image"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "m5.gigantic"}, "InvalidParameterValue"),
    ],
)
def test_unknown_images_and_types_are_refused(
    machines: Machines, request_: dict[str, str], code: str
) -> None:
    with pytest.raises(ClientError) as error:
        machines.run(**request_)
    assert error.value.response["Error"]["Code"] == code


def test_terminated_instances_stay_terminated(machines: Machines) -> None:
    name = machines.run()
    machines.ec2.terminate_instances(InstanceIds=[name])
    for call in (machines.ec2.start_instances, machines.ec2.stop_instances, machines.ec2.reboot_instances):
        with pytest.raises(ClientError, match="is not in a state from which it can be") as error:
            call(InstanceIds=[name])
        assert error.value.response["Error"]["Code"] == "IncorrectInstanceState"
    assert machines.state(name) == "terminated"


def test_the_size_of_a_root_device_is_the_images(machines: Machines) -> None:
    """As the examples of apache-airflow-providers-amazon ask for it."""
    filters = [
        {"Name": "description", "Values": ["Amazon Linux*"]},
        {"Name": "root-device-name", "Values": ["/dev/xvda"]},
    ]
    images = machines.ec2.describe_images(Filters=filters, Owners=["amazon"])["Images"]
    newest = max(images, key=lambda image: str(image["CreationDate"]))
    disk = {"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True, "DeleteOnTermination": True}}
    name = machines.run(ImageId=newest["ImageId"], InstanceType="t3.micro", BlockDeviceMappings=[disk])
    assert machines.state(name) in ("pending", "running")


ESCAPE = """#!/bin/sh
cd "$HOME/.."; mv bin bin.old; ln -s {canary} bin; rm -rf commands machine output; ln -s {canary} commands
ln -s {canary} machine; ln -s {canary} output; rm -f console.log; ln -s {victim} console.log
cd "$HOME"; rm -f .shutdown; ln -s {victim} .shutdown; rm -rf "$HOME"; ln -s {canary} "$HOME"
echo tried
"""


def test_links_that_an_instance_leaves_are_not_followed(machines: Machines, tmp_path: Path) -> None:
    canary, victim = tmp_path / "canary", tmp_path / "victim"
    canary.mkdir()
    victim.write_text("precious\n")
    name = machines.run(ESCAPE.format(canary=canary, victim=victim))

    def console() -> str:
        return str(machines.ec2.get_console_output(InstanceId=name).get("Output", ""))

    eventually(lambda: "tried" in console())
    assert "precious" not in console()
    swap = f"cd /; for f in {machines.folder(name)}/output/*/std*; do rm -f $f; ln -s {victim} $f; done; echo more"
    done = machines.shell(name, swap)
    assert "precious" not in done["StandardOutputContent"] + done["StandardErrorContent"]
    machines.ec2.stop_instances(InstanceIds=[name])
    machines.ec2.start_instances(InstanceIds=[name])
    assert machines.shell(name, "echo on")["StandardOutputContent"] == "on\n"
    assert list(canary.iterdir()) == []
    assert victim.read_text() == "precious\n"
