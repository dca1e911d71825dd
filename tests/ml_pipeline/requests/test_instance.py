"""RunInstances and SendCommand, against the service model of botocore."""

from __future__ import annotations

import pytest

from ml_pipeline.requests import instance
from ml_pipeline.requests.instance import Instance
from ml_pipeline.requests.job import Compute
from tests.ml_pipeline.requests.examples import CODE, TAGS
from tests.ml_pipeline.service_model import problems


def test_instance_and_command() -> None:
    machine = Instance(
        name="ec2-0123456789ab-1",
        image_id="ami-12c6146b",
        instance_type="m5.xlarge",
        profile="ml-pipeline-instance",
        security_group_id="sg-1",
        subnet_id="subnet-1",
    )
    request = instance.run_instances(machine, TAGS)
    assert problems("ec2", "RunInstances", request) == []
    assert request["MetadataOptions"]["HttpTokens"] == "required"
    assert "KeyName" not in request
    assert "shutdown -h +240" in request["UserData"]
    assert problems("ec2", "CreateSecurityGroup", instance.security_group("none", "vpc-1")) == []
    command = instance.send_command(
        "ec2-train-1", "i-0123456789abcdef0", CODE, "s3://bucket/jobs/x/job.json", "bucket", 3600, "eu-west-1"
    )
    assert problems("ssm", "SendCommand", command) == []
    assert command["Parameters"]["executionTimeout"] == ["3600"]


def test_an_ml_instance_type_is_refused_for_ec2_and_the_reverse() -> None:
    with pytest.raises(ValueError, match=r"write m5\.xlarge"):
        Instance("n", "ami", "ml.m5.xlarge", "profile", "sg")
    with pytest.raises(ValueError, match=r"write ml\.m5\.xlarge"):
        Compute("m5.xlarge")
