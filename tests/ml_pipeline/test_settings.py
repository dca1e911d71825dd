"""Settings from the environment."""

from __future__ import annotations

import json

import pytest

from ml_pipeline.settings import Settings, SettingsError, airflow_connection


def test_local_settings_need_nothing_and_aws_needs_its_own() -> None:
    local = Settings.load({"LOCAL_AWS_URL": "http://127.0.0.1:4566/"})
    assert (local.local, local.bucket, local.region) == (True, "ml-pipeline", "us-east-1")
    with pytest.raises(SettingsError, match="ML_PIPELINE_BUCKET"):
        Settings.load({})
    aws = Settings.load(
        {
            "ML_PIPELINE_BUCKET": "mine",
            "ML_PIPELINE_ROLE_ARN": "arn:aws:iam::1:role/r",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }
    )
    assert (aws.local, aws.poll_seconds) == (False, 30.0)


def test_the_network_of_jobs_is_read_from_the_environment() -> None:
    environment = {
        "LOCAL_AWS_URL": "http://127.0.0.1:4566",
        "ML_PIPELINE_JOB_SUBNET_IDS": "subnet-a, subnet-b",
        "ML_PIPELINE_JOB_SECURITY_GROUP_IDS": "sg-1",
        "ML_PIPELINE_VOLUME_KEY": "alias/x",
        "ML_PIPELINE_ISOLATE_JOBS": "true",
    }
    network = Settings.load(environment).network
    assert network.vpc == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-a", "subnet-b"]}
    assert (network.volume_key, network.isolated, network.encrypt_traffic) == ("alias/x", True, False)
    with pytest.raises(SettingsError, match="ISOLATE_JOBS is 'yes'"):
        Settings.load({**environment, "ML_PIPELINE_ISOLATE_JOBS": "yes"})
    with pytest.raises(SettingsError, match="JOB_SECURITY_GROUP_IDS"):
        Settings.load({**environment, "ML_PIPELINE_JOB_SECURITY_GROUP_IDS": ""})


@pytest.mark.parametrize(
    "image", ["ml-pipeline-training:1-cpu", "https://registry.example.com/training:1", "a b.c/d"]
)
def test_an_image_that_is_no_uri_is_refused(image: str) -> None:
    local = {"LOCAL_AWS_URL": "http://127.0.0.1:4566"}
    for name in ("ML_PIPELINE_TRAINING_IMAGE", "ML_PIPELINE_SERVING_IMAGE"):
        with pytest.raises(SettingsError, match=f"{name} is '{image}': give <registry>/<repository>:<tag>"):
            Settings.load({**local, name: image})


def test_an_image_is_given_with_a_tag_or_a_digest() -> None:
    tagged = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/a/b:1-cpu"
    digest = f"registry.example.com:5000/a@sha256:{'0' * 64}"
    local = {"LOCAL_AWS_URL": "http://127.0.0.1:4566"}
    images = {"ML_PIPELINE_TRAINING_IMAGE": tagged, "ML_PIPELINE_SERVING_IMAGE": digest}
    settings = Settings.load({**local, **images})
    assert (settings.training_image, settings.serving_image) == (tagged, digest)


def test_the_connection_reaches_every_service_at_one_address() -> None:
    connection = json.loads(airflow_connection("http://127.0.0.1:4566"))
    assert connection["extra"]["endpoint_url"] == "http://127.0.0.1:4566"
    assert connection["extra"]["service_config"]["sts"]["endpoint_url"] == "http://127.0.0.1:4566"
