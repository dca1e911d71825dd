"""Endpoints over HTTP with boto3: real servers that are invoked, crash, come back and are replaced."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.cloud import IMAGES, Cloud, eventually, unique
from tests.local_aws.serving import Deployment


@pytest.fixture
def deployment(cloud: Cloud) -> Iterator[Deployment]:
    made = Deployment(cloud)
    yield made
    with contextlib.suppress(ClientError):  # a test may not have come to creating it
        made.delete()


def test_an_endpoint_answers_and_says_what_went_wrong(deployment: Deployment) -> None:
    description = deployment.deploy("1")
    assert description["EndpointStatus"] == "InService", description
    assert description["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    answer = deployment.ask(
        b"photo", ContentType="image/jpeg", Accept="application/json", CustomAttributes="trace=7"
    )
    assert (answer["version"], answer["body"], answer["env"]) == ("1", "photo", "1")
    assert (answer["type"], answer["accept"]) == ("image/jpeg", "application/json")
    assert answer["raw"]["CustomAttributes"] == "trace=7"
    assert answer["variant"] == "v0"
    for body, status, text in ((b"fail", 500, "the model is unwell"), (b"bad", 400, "not a photo")):
        with pytest.raises(ClientError) as error:
            deployment.ask(body)
        response: Any = error.value.response
        assert response["Error"]["Code"] == "ModelError"
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
        assert response["OriginalStatusCode"] == status
        assert response["OriginalMessage"] == text
        assert f"/aws/sagemaker/Endpoints/{deployment.endpoint}" in response["LogStreamArn"]
    with pytest.raises(ClientError) as error:
        deployment.ask(b"crash")
    assert error.value.response["Error"]["Code"] == "ModelError"
    assert deployment.ask()["process"] != answer["process"]
    group = f"/aws/sagemaker/Endpoints/{deployment.endpoint}"
    logs = deployment.cloud.client("logs")
    eventually(
        lambda: any(
            "invoked with" in e["message"] for e in logs.filter_log_events(logGroupName=group)["events"]
        )
    )
    stream = deployment.runtime.invoke_endpoint_with_response_stream(
        EndpointName=deployment.endpoint, Body=b"streamed"
    )
    payload = b"".join(event["PayloadPart"]["Bytes"] for event in stream["Body"])
    assert json.loads(payload)["body"] == "streamed"


def test_what_cannot_be_created(deployment: Deployment) -> None:
    sagemaker = deployment.cloud.sagemaker
    config = deployment.config("1")

    def refused(call: Callable[..., Any], **arguments: Any) -> str:
        with pytest.raises(ClientError) as error:
            call(**arguments)
        assert error.value.response["Error"]["Code"] == "ValidationException"
        return str(error.value.response["Error"]["Message"])

    variant = {
        "VariantName": "v",
        "ModelName": "none",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    create_config = sagemaker.create_endpoint_config
    assert "Could not find model" in refused(
        create_config, EndpointConfigName="c", ProductionVariants=[variant]
    )
    again = {
        "EndpointConfigName": config,
        "ProductionVariants": [{**variant, "ModelName": deployment.model("1")}],
    }
    assert "Cannot create already existing endpoint configuration" in refused(create_config, **again)
    missing = refused(sagemaker.create_endpoint, EndpointName="x", EndpointConfigName="none")
    assert "Could not find endpoint configuration" in missing
    assert "Could not find endpoint" in refused(sagemaker.describe_endpoint, EndpointName="none")
    sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=config)
    twice = refused(sagemaker.create_endpoint, EndpointName=deployment.endpoint, EndpointConfigName=config)
    assert "Cannot create already existing endpoint" in twice
    busy = refused(sagemaker.update_endpoint, EndpointName=deployment.endpoint, EndpointConfigName=config)
    assert "Cannot update in-progress endpoint" in busy
    arn = f"arn:aws:sagemaker:us-east-1:123456789012:endpoint/{deployment.endpoint}"
    being_made = refused(sagemaker.delete_endpoint, EndpointName=deployment.endpoint)
    assert being_made == f'Cannot update in-progress endpoint "{arn}".'
    deployment.settled()
    with pytest.raises(ClientError) as error:
        deployment.runtime.invoke_endpoint(EndpointName="none", Body=b"")
    assert error.value.response["Error"]["Code"] == "ValidationError"


def test_a_server_that_does_not_come_up_fails_with_its_own_words(deployment: Deployment) -> None:
    description = deployment.deploy("broken")
    assert description["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check" in description["FailureReason"]
    assert "no weights in here" in description["FailureReason"]


def test_missing_model_data_fail(deployment: Deployment) -> None:
    config = deployment.config("gone")
    deployment.cloud.s3.delete_object(Bucket=deployment.bucket, Key="models/gone/model.tar.gz")
    deployment.cloud.sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=config)
    description = deployment.settled()
    assert description["EndpointStatus"] == "Failed"
    assert "Failed to download model data" in description["FailureReason"]


def test_variants_weights_and_capacities(deployment: Deployment) -> None:
    deployment.deploy("1", "2", weights=(3.0, 1.0))
    seen = [deployment.ask()["variant"] for _ in range(60)]
    assert 25 < seen.count("v0") < 60
    assert {deployment.ask(TargetVariant="v1")["version"] for _ in range(5)} == {"2"}
    with pytest.raises(ClientError) as error:
        deployment.ask(TargetVariant="v7")
    assert error.value.response["Error"]["Code"] == "ValidationError"
    deployment.cloud.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=deployment.endpoint,
        DesiredWeightsAndCapacities=[
            {"VariantName": "v0", "DesiredWeight": 0.0},
            {"VariantName": "v1", "DesiredInstanceCount": 2},
        ],
    )
    description = deployment.settled()
    summaries = {item["VariantName"]: item for item in description["ProductionVariants"]}
    assert summaries["v0"]["CurrentWeight"] == 0.0
    assert summaries["v1"]["CurrentInstanceCount"] == 2
    answers = [deployment.ask() for _ in range(12)]
    assert {answer["variant"] for answer in answers} == {"v1"}
    assert len({answer["process"] for answer in answers}) == 2


def test_an_endpoint_takes_the_first_of_its_instance_pools(deployment: Deployment) -> None:
    sagemaker = deployment.cloud.sagemaker
    pools = [
        {"InstanceType": "ml.m6i.large", "Priority": 2},
        {"InstanceType": "ml.m5.large", "Priority": 1},
    ]
    variant: Any = {"VariantName": "v0", "ModelName": deployment.model("1"), "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(
        EndpointConfigName=deployment.endpoint, ProductionVariants=[{**variant, "InstancePools": pools}]
    )
    with pytest.raises(ClientError, match="InstancePools of variant v0 repeat a Priority"):
        sagemaker.create_endpoint_config(
            EndpointConfigName=f"{deployment.endpoint}-2",
            ProductionVariants=[{**variant, "InstancePools": [{**pool, "Priority": 1} for pool in pools]}],
        )
    sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=deployment.endpoint)
    summary = deployment.settled()["ProductionVariants"][0]
    assert summary["InstancePools"] == [{"InstanceType": "ml.m5.large", "CurrentInstanceCount": 1}]


def canary(seconds: int, alarm: str | None = None, kind: str = "CANARY") -> dict[str, Any]:
    size = "CanarySize" if kind == "CANARY" else "LinearStepSize"
    routing = {
        "Type": kind,
        "WaitIntervalInSeconds": seconds,
        size: {"Type": "CAPACITY_PERCENT", "Value": 50},
    }
    config: dict[str, Any] = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    if alarm:
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": alarm}]}
    return config


def test_a_canary_takes_a_share_and_then_all_without_a_failed_request(deployment: Deployment) -> None:
    deployment.deploy("1", count=2)
    new = deployment.config("2")
    deployment.cloud.sagemaker.update_endpoint(
        EndpointName=deployment.endpoint,
        EndpointConfigName=new,
        DeploymentConfig=canary(1),
        RetainAllVariantProperties=True,
    )
    assert "PendingDeploymentSummary" in deployment.describe()
    seen = set()
    while deployment.describe()["EndpointStatus"] == "Updating":
        seen.add(deployment.ask()["version"])
    description = deployment.describe()
    assert seen == {"1", "2"}
    assert description["EndpointConfigName"] == new
    assert description["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert "PendingDeploymentSummary" not in description
    assert {deployment.ask()["version"] for _ in range(8)} == {"2"}


def test_updates_under_load_lose_no_request(deployment: Deployment) -> None:
    first = deployment.deploy("1")["EndpointConfigName"]
    second = deployment.config("2")
    done = threading.Event()

    def ask() -> int:
        count = 0
        while not done.is_set():
            deployment.ask()
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask) for _ in range(3)]
        for config in (second, first, second):
            deployment.cloud.sagemaker.update_endpoint(
                EndpointName=deployment.endpoint, EndpointConfigName=config
            )
            assert deployment.settled()["EndpointConfigName"] == config
        done.set()
        assert sum(future.result() for future in asked) > 10


def test_an_alarm_rolls_back(deployment: Deployment) -> None:
    old = deployment.deploy("1")["EndpointConfigName"]
    cloudwatch = deployment.cloud.client("cloudwatch")
    alarm = unique("alarm")
    new = deployment.config("2")
    with pytest.raises(ClientError) as error:
        deployment.cloud.sagemaker.update_endpoint(
            EndpointName=deployment.endpoint, EndpointConfigName=new, DeploymentConfig=canary(30, alarm)
        )
    assert alarm in str(error.value)
    dimensions = {"EndpointName": deployment.endpoint, "VariantName": "v0"}
    cloudwatch.put_metric_alarm(
        AlarmName=alarm,
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=2,
        ComparisonOperator="GreaterThanThreshold",
    )
    deployment.cloud.sagemaker.update_endpoint(
        EndpointName=deployment.endpoint, EndpointConfigName=new, DeploymentConfig=canary(30, alarm, "LINEAR")
    )
    eventually(lambda: deployment.ask()["version"] == "2")
    for _ in range(4):
        with pytest.raises(ClientError):
            deployment.ask(b"fail")
    description = deployment.settled()
    assert description["EndpointStatus"] == "InService"
    assert description["EndpointConfigName"] == old
    assert alarm in description["FailureReason"]
    assert {deployment.ask()["version"] for _ in range(6)} == {"1"}


def test_a_new_version_that_fails_leaves_the_old_one(deployment: Deployment) -> None:
    old = deployment.deploy("1")["EndpointConfigName"]
    deployment.cloud.sagemaker.update_endpoint(
        EndpointName=deployment.endpoint, EndpointConfigName=deployment.config("broken")
    )
    description = deployment.settled()
    assert description["EndpointConfigName"] == old
    assert "no weights in here" in description["FailureReason"]
    assert deployment.ask()["version"] == "1"


def test_quotas_hold_for_every_fleet(deployment: Deployment) -> None:
    """The cloud has a quota of one ml.p3.2xlarge."""
    sagemaker = deployment.cloud.sagemaker
    one, two = (deployment.config("1", count=count, instance_type="ml.p3.2xlarge") for count in (1, 2))
    both = deployment.config("1", "1", instance_type="ml.p3.2xlarge")
    plain = deployment.config("1")

    def refused(call: Callable[..., Any], in_use: int, wanted: int, **arguments: Any) -> None:
        with pytest.raises(ClientError) as error:
            call(**{"EndpointName": deployment.endpoint, **arguments})
        assert error.value.response["Error"]["Code"] == "ResourceLimitExceeded"
        message = error.value.response["Error"]["Message"]
        assert f"utilization of {in_use} Instances and a request delta of {wanted} Instances" in message

    def scale(count: int) -> dict[str, Any]:
        item = {"VariantName": "v0", "DesiredInstanceCount": count}
        return {"EndpointName": deployment.endpoint, "DesiredWeightsAndCapacities": [item]}

    for config in (two, both):
        refused(sagemaker.create_endpoint, 0, 2, EndpointConfigName=config)
    sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=one)
    refused(sagemaker.create_endpoint, 1, 1, EndpointName="another", EndpointConfigName=one)
    deployment.settled()
    refused(sagemaker.update_endpoint, 1, 1, EndpointConfigName=one)
    refused(sagemaker.update_endpoint_weights_and_capacities, 1, 1, **scale(2))
    sagemaker.update_endpoint_weights_and_capacities(**scale(1))
    deployment.settled()
    sagemaker.update_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=plain)
    assert deployment.settled()["EndpointConfigName"] == plain
    sagemaker.update_endpoint_weights_and_capacities(**scale(2))
    assert deployment.settled()["ProductionVariants"][0]["CurrentInstanceCount"] == 2


def test_data_capture(deployment: Deployment) -> None:
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{deployment.bucket}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }
    description = deployment.deploy("1", DataCaptureConfig=capture)
    assert description["DataCaptureConfig"]["CaptureStatus"] == "Started"
    deployment.ask(b"\xff\xd8photo", ContentType="image/jpeg", InferenceId="id-1")
    prefix = f"captured/{deployment.endpoint}/v0/"

    def first_key() -> Any:
        listed = deployment.cloud.s3.list_objects_v2(Bucket=deployment.bucket, Prefix=prefix)
        return listed.get("Contents", [{}])[0].get("Key")

    body = deployment.cloud.s3.get_object(Bucket=deployment.bucket, Key=eventually(first_key))["Body"].read()
    line = json.loads(body.splitlines()[0])
    assert line["captureData"]["endpointInput"]["encoding"] == "BASE64"
    assert line["captureData"]["endpointInput"]["observedContentType"] == "image/jpeg"
    assert json.loads(line["captureData"]["endpointOutput"]["data"])["version"] == "1"
    assert line["eventMetadata"]["inferenceId"] == "id-1"


def test_asynchronous_inference(deployment: Deployment) -> None:
    queue_url, topic = listener(deployment.cloud)
    output = {
        "S3OutputPath": f"s3://{deployment.bucket}/answers",
        "S3FailurePath": f"s3://{deployment.bucket}/failures",
        "NotificationConfig": {"SuccessTopic": topic, "ErrorTopic": topic},
    }
    deployment.deploy("1", AsyncInferenceConfig={"OutputConfig": output})
    s3, sqs = deployment.cloud.s3, deployment.cloud.client("sqs")
    for key, body in (("good", b"photo"), ("wrong", b"fail")):
        s3.put_object(Bucket=deployment.bucket, Key=key, Body=body)
        accepted = deployment.runtime.invoke_endpoint_async(
            EndpointName=deployment.endpoint, InputLocation=f"s3://{deployment.bucket}/{key}"
        )
        location = accepted["OutputLocation" if key == "good" else "FailureLocation"]
        name = location.removeprefix(f"s3://{deployment.bucket}/")
        s3.get_waiter("object_exists").wait(Bucket=deployment.bucket, Key=name, WaiterConfig={"Delay": 1})
        text = s3.get_object(Bucket=deployment.bucket, Key=name)["Body"].read().decode()
        assert "photo" in text if key == "good" else "unwell" in text
        messages = eventually(
            lambda: sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=1).get("Messages")
        )
        notice = json.loads(json.loads(messages[0]["Body"])["Message"])
        assert notice["invocationStatus"] == ("Completed" if key == "good" else "Failed")
        assert notice["inferenceId"] == accepted["InferenceId"]
        sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=messages[0]["ReceiptHandle"])


def listener(cloud: Cloud) -> tuple[str, str]:
    name = unique("heard")
    queue_url = cloud.client("sqs").create_queue(QueueName=name)["QueueUrl"]
    topic = cloud.client("sns").create_topic(Name=name)["TopicArn"]
    arn = f"arn:aws:sqs:us-east-1:123456789012:{name}"
    cloud.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    return queue_url, topic


def test_serverless_variants_refuse_more_than_their_concurrency(deployment: Deployment) -> None:
    name = unique("config")
    serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 1}
    deployment.cloud.sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[
            {"VariantName": "v0", "ModelName": deployment.model("1"), "ServerlessConfig": serverless}
        ],
    )
    deployment.cloud.sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=name)
    summary = deployment.settled()["ProductionVariants"][0]
    assert summary["CurrentServerlessConfig"] == serverless
    assert deployment.ask()["version"] == "1"

    def throttled() -> bool:
        try:
            deployment.ask()
        except deployment.runtime.exceptions.ClientError as error:
            return str(error.response["Error"]["Code"]) == "ThrottlingException"
        return False

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(deployment.ask, b"slow")
        eventually(throttled, 2.5)
        assert slow.result()["version"] == "1"


@pytest.mark.slow
def test_endpoints_come_back_after_kill_9(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud()
    deployment = Deployment(cloud)
    deployment.deploy("1")
    before = deployment.ask()["process"]
    cloud.kill()
    cloud.start()
    deployment.runtime = cloud.client("sagemaker-runtime")
    assert deployment.describe()["EndpointStatus"] == "InService"
    after = deployment.ask()
    assert after["version"] == "1"
    assert after["process"] != before


def test_changes_that_fail_inside_local_aws_leave_the_endpoint_in_service(
    own_cloud: Callable[..., Cloud],
) -> None:
    cloud = own_cloud("--cores", "2")
    deployment = Deployment(cloud)
    old = deployment.deploy("1")["EndpointConfigName"]
    new = deployment.config("2")
    logs = sqlite3.connect(cloud.state / "logs.sqlite")
    logs.execute("ALTER TABLE streams RENAME TO elsewhere")  # a new server's log has no place to go
    cloud.sagemaker.update_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=new)
    description = deployment.settled()
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", old)
    assert "local_aws failed: OperationalError" in description["FailureReason"]
    two = [{"VariantName": "v0", "DesiredInstanceCount": 2}]
    cloud.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=deployment.endpoint, DesiredWeightsAndCapacities=two
    )
    description = deployment.settled()
    assert description["EndpointStatus"] == "InService"
    assert "local_aws failed: OperationalError" in description["FailureReason"]
    assert deployment.ask(b"meanwhile")["version"] == "1"
    logs.execute("ALTER TABLE elsewhere RENAME TO streams")
    logs.close()
    deployment.ask(b"after")
    group = f"/aws/sagemaker/Endpoints/{deployment.endpoint}"

    def invoked() -> list[str]:
        events = cloud.client("logs").filter_log_events(logGroupName=group, filterPattern="invoked")
        return [event["message"] for event in events["events"]]

    eventually(lambda: len(invoked()) == 2)
    assert ["meanwhile" in invoked()[0], "after" in invoked()[1]] == [True, True]
    cloud.sagemaker.update_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=new)
    assert deployment.settled()["EndpointConfigName"] == new


@pytest.mark.slow
def test_an_endpoint_that_could_not_come_back_is_tried_again(
    own_cloud: Callable[..., Cloud], tmp_path: Path
) -> None:
    cloud = own_cloud()
    deployment = Deployment(cloud)
    deployment.deploy("1")
    cloud.stop()
    unknown = tmp_path / "images.toml"
    unknown.write_text(IMAGES.read_text().replace("serving:", "other:"))
    cloud.options = ("--images", str(unknown))
    cloud.start()
    description = eventually(
        lambda: found if (found := deployment.describe())["EndpointStatus"] == "Failed" else None
    )
    assert "local_aws does not know the image" in description["FailureReason"]
    cloud.stop()
    cloud.options = ()
    cloud.start()
    description = eventually(
        lambda: found if (found := deployment.describe())["EndpointStatus"] == "InService" else None
    )
    assert "FailureReason" not in description
    deployment.runtime = cloud.client("sagemaker-runtime")
    assert deployment.ask()["version"] == "1"
