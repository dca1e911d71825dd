"""The templates: linted, created in order, and as the pipeline's own settings expect them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from ml_pipeline.requests.endpoint import Serving, alarms
from ml_pipeline.settings import Settings
from tests.infra import stacks
from tests.infra.policy import Request, allowed
from tests.infra.template import EXPORTS, Template

Outputs = dict[str, dict[str, str]]


@pytest.mark.slow
def test_cfn_lint_finds_nothing() -> None:
    cfn_lint = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([cfn_lint, *stacks.TEMPLATES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_script_deploys_every_template_and_parses() -> None:
    script = stacks.INFRA / "deploy.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    named = re.findall(r"\bdeploy ([a-z]+)", script.read_text())
    assert sorted(named) == [path.stem for path in stacks.TEMPLATES]


def test_script_passes_parameters_that_the_templates_have(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    aws = tmp_path / "aws"
    aws.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    aws.chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "NETWORK": "true",
        "ENDPOINT": "dogs",
        "EMAIL": "a@example.com",
        "PHOTO_BUCKETS": "arn:aws:s3:::team-photos",
    }
    subprocess.run([stacks.INFRA / "deploy.sh"], env=env, check=True)
    created = [line for line in calls.read_text().splitlines() if line.startswith("cloudformation deploy")]
    assert len(created) == len(stacks.TEMPLATES)
    readers = [line for line in created if "PhotoBuckets=arn:aws:s3:::team-photos" in line]
    assert len(readers) == 2
    for line in created:
        template = (stacks.INFRA / re.findall(r"--template-file (\S+)", line)[0]).read_text()
        for name in re.findall(r"(\w+)=", line):
            assert f"\n  {name}:\n" in template, line


@pytest.mark.slow
def test_outputs_are_settings_that_load(deployed: Outputs) -> None:
    settings = Settings.load(
        {
            "ML_PIPELINE_BUCKET": deployed["storage"]["Bucket"],
            "ML_PIPELINE_ROLE_ARN": deployed["jobs"]["JobRole"],
            "ML_PIPELINE_INSTANCE_PROFILE": deployed["jobs"]["InstanceProfile"],
            "ML_PIPELINE_QUEUE_URL": deployed["storage"]["QueueUrl"],
            "ML_PIPELINE_SNS_TOPIC_ARN": deployed["storage"]["TopicArn"],
            "ML_PIPELINE_SUBNET_ID": deployed["network"]["SubnetA"],
            "AWS_DEFAULT_REGION": stacks.REGION,
        }
    )
    assert not settings.local
    assert settings.instance_profile == Settings("b", "arn:x", "r").instance_profile


@pytest.mark.slow
def test_images_are_where_the_pipeline_looks_for_them(deployed: Outputs) -> None:
    from ml_pipeline.aws import images

    settings = Settings("b", deployed["jobs"]["JobRole"], stacks.REGION)
    assert images.serving_image(settings, "ml.m5.large").startswith(f"{deployed['images']['Serving']}:")


@pytest.mark.slow
def test_network_has_no_way_out_and_every_service_in(deployed: Outputs) -> None:
    ec2 = boto3.client("ec2", region_name=stacks.REGION)
    vpc = [{"Name": "vpc-id", "Values": [deployed["network"]["VpcId"]]}]
    endpoints = ec2.describe_vpc_endpoints(Filters=vpc)["VpcEndpoints"]
    services = {each["ServiceName"].removeprefix(f"com.amazonaws.{stacks.REGION}.") for each in endpoints}
    assert {
        "s3", "sagemaker.api", "sagemaker.runtime", "ecr.api", "ecr.dkr", "logs", "monitoring", "sts", "kms", "sqs",
        "sns", "ec2", "ssm", "ssmmessages", "ec2messages",
    } == services  # fmt: skip
    attached = [{"Name": "attachment.vpc-id", "Values": vpc[0]["Values"]}]
    assert ec2.describe_internet_gateways(Filters=attached)["InternetGateways"] == []
    for subnet in Template("network").properties("AWS::EC2::Subnet").values():
        assert str(subnet["MapPublicIpOnLaunch"]).lower() == "false"
    routes = [
        route for table in ec2.describe_route_tables(Filters=vpc)["RouteTables"] for route in table["Routes"]
    ]
    assert all(route.get("DestinationCidrBlock") != "0.0.0.0/0" for route in routes)


def test_nothing_may_come_in_from_outside() -> None:
    groups = Template("network").properties("AWS::EC2::SecurityGroup")
    assert "SecurityGroupIngress" not in groups["Machines"]
    assert [rule["CidrIp"] for rule in groups["EndpointGroup"]["SecurityGroupIngress"]] == ["10.80.0.0/20"]


OURS = {"aws:PrincipalAccount": stacks.ACCOUNT, "aws:ResourceAccount": stacks.ACCOUNT}
# They also answer about things of AWS's: images, machine images, public parameters; or about no thing at all.
OF_OTHERS_TOO = {"EcrApi", "EcrDocker", "Ec2", "Ssm", "SsmMessages", "Ec2Messages", "Sts"}


def test_data_leaves_the_network_for_this_account_only() -> None:
    endpoints = Template("network").properties("AWS::EC2::VPCEndpoint")
    for name, endpoint in endpoints.items():
        policy = [endpoint["PolicyDocument"]]
        assert allowed(policy, Request("any:Action", "*", OURS)), name
        assert not allowed(
            policy, Request("any:Action", "*", OURS | {"aws:PrincipalAccount": "999999999999"})
        ), name
        theirs = OURS | {"aws:ResourceAccount": "999999999999"}
        assert allowed(policy, Request("any:Action", "*", theirs)) is (name in OF_OTHERS_TOO), name
    layers = f"arn:aws:s3:::prod-{stacks.REGION}-starport-layer-bucket/x"
    assert allowed([endpoints["S3"]["PolicyDocument"]], Request("s3:GetObject", layers))
    shared = Template("network", {"PhotoAccounts": "999999999999,888888888888"})
    policy = [shared.properties("AWS::EC2::VPCEndpoint")["S3"]["PolicyDocument"]]
    for account in (stacks.ACCOUNT, "999999999999", "888888888888"):
        assert allowed(
            policy, Request("s3:GetObject", "arn:aws:s3:::x/y", OURS | {"aws:ResourceAccount": account})
        )


def test_traffic_is_recorded_on_demand() -> None:
    network = Template("network", {"FlowLogDays": "30"})
    assert not Template("network").holds("HasFlowLogs")
    assert network.holds("HasFlowLogs")
    assert network.properties("AWS::Logs::LogGroup")["FlowLogs"]["RetentionInDays"] == "30"
    flow_log = network.properties("AWS::EC2::FlowLog")["FlowLog"]
    assert (flow_log["ResourceId"], flow_log["LogGroupName"]) == ("Vpc", "FlowLogs")


def test_alarms_for_people_watch_what_the_rollout_watches() -> None:
    ours = Template("endpoint", {"EndpointName": "dogs"}).properties("AWS::CloudWatch::Alarm")
    serving = Serving("dogs", "s3://b/model.tar.gz", "image", "arn:aws:iam::1:role/x", "ml.m5.large")
    rollout = {alarm["MetricName"]: alarm for alarm in alarms(serving)}
    assert {alarm["MetricName"] for alarm in ours.values()} == set(rollout)
    for alarm in ours.values():
        other = rollout[alarm["MetricName"]]
        for key in ("Namespace", "Dimensions", "ComparisonOperator", "TreatMissingData"):
            assert alarm[key] == other[key]
        assert float(alarm["Threshold"]) == other["Threshold"]
        # Another name: the deploy task overwrites its own alarms, and with them any action of ours.
        assert alarm["AlarmName"] != other["AlarmName"]
        assert alarm["AlarmActions"] == [EXPORTS["ml-pipeline-topic"]]
