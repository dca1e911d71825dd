"""Models of several containers: each answers the one before it, on an endpoint and in a transform job."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.cloud import ROLE, Cloud, eventually, unique
from tests.local_aws.serving import SERVING_IMAGE, Deployment

SERVER = """
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(200, b"", "text/plain")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        name = os.environ["STEP"]
        if name == "crash":
            os._exit(3)
        if name == "refuse":
            return self.answer(415, b"not my type", "text/plain")
        said = "|".join([body, name, self.headers["Content-Type"], self.headers.get("Accept") or "-"])
        self.answer(200, said.encode(), f"text/{name}")
    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind); self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        print("asked", os.environ["STEP"], flush=True)

if os.environ["STEP"] == "broken":
    sys.exit("no weights in here")
ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


def containers(deployment: Deployment, *steps: str) -> list[dict[str, Any]]:
    """Containers that add their step, the content type and what may be answered to what they are sent."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("code/server.py")
        member.size = len(SERVER)
        archive.addfile(member, io.BytesIO(SERVER.encode()))
    deployment.cloud.s3.put_object(Bucket=deployment.bucket, Key="step.tar.gz", Body=packed.getvalue())
    url = f"s3://{deployment.bucket}/step.tar.gz"
    return [{"Image": SERVING_IMAGE, "ModelDataUrl": url, "Environment": {"STEP": step}} for step in steps]


def create_model(cloud: Cloud, parts: list[dict[str, Any]], **more: Any) -> str:
    """Create a model of several containers; its name."""
    name = unique("pipeline")
    cloud.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, Containers=parts, **more)
    return name


def deploy(deployment: Deployment, model: str) -> dict[str, Any]:
    """Create the endpoint and wait; its description."""
    variant = {
        "VariantName": "v",
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker = deployment.cloud.sagemaker
    sagemaker.create_endpoint_config(EndpointConfigName=model, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=model)
    return deployment.settled()


@pytest.fixture
def deployment(cloud: Cloud) -> Iterator[Deployment]:
    made = Deployment(cloud)
    yield made
    with contextlib.suppress(ClientError):
        made.delete()


def invoke(deployment: Deployment, body: bytes, **more: Any) -> str:
    """Invoke; the answer."""
    answer = deployment.runtime.invoke_endpoint(
        EndpointName=deployment.endpoint, Body=body, ContentType="text/csv", Accept="text/last", **more
    )
    assert answer["ContentType"] == "text/c"
    return str(answer["Body"].read().decode())


def test_each_container_answers_the_one_before_it(deployment: Deployment) -> None:
    parts = containers(deployment, "a", "b", "c")
    parts[1]["ContainerHostname"] = "middle"
    model = create_model(deployment.cloud, parts, InferenceExecutionConfig={"Mode": "Serial"})
    description = deploy(deployment, model)
    assert description["EndpointStatus"] == "InService", description
    assert len(description["ProductionVariants"][0]["DeployedImages"]) == 3
    assert invoke(deployment, b"x") == "x|a|text/csv|-|b|text/a|-|c|text/b|text/last"

    with pytest.raises(ClientError) as error:
        deployment.runtime.invoke_endpoint(
            EndpointName=deployment.endpoint, Body=b"", TargetContainerHostname="middle"
        )
    assert "leave TargetContainerHostname out" in str(error.value)

    group = f"/aws/sagemaker/Endpoints/{deployment.endpoint}"
    logs = deployment.cloud.client("logs")
    eventually(lambda: logs.filter_log_events(logGroupName=group, filterPattern="asked")["events"])
    streams = {s["logStreamName"] for s in logs.describe_log_streams(logGroupName=group)["logStreams"]}
    assert {name.rpartition("/")[2] for name in streams} == {"container-1", "middle", "container-3"}


@pytest.mark.parametrize(
    ("steps", "status", "text"),
    [
        (("refuse", "b"), 415, "client error (415) from first with message"),
        (("a", "refuse"), 415, "client error (415) from second with message"),
        (("a", "crash"), 0, "container second closed the connection"),
    ],
)
def test_a_failing_container_is_named(
    deployment: Deployment, steps: tuple[str, ...], status: int, text: str
) -> None:
    parts = containers(deployment, *steps)
    for part, name in zip(parts, ("first", "second"), strict=True):
        part["ContainerHostname"] = name
    deploy(deployment, create_model(deployment.cloud, parts))
    with pytest.raises(ClientError) as error:
        invoke(deployment, b"x")
    response: Any = error.value.response
    assert text in response["Error"]["Message"]
    assert response["OriginalStatusCode"] == status
    assert response["LogStreamArn"].endswith("/first" if steps[0] == "refuse" else "/second")


def test_a_container_that_does_not_come_up_fails_the_endpoint_by_its_name(deployment: Deployment) -> None:
    model = create_model(deployment.cloud, containers(deployment, "a", "broken"))
    description = deploy(deployment, model)
    assert description["EndpointStatus"] == "Failed"
    assert description["FailureReason"].startswith("The container-2 container for production variant v")
    assert "no weights in here" in description["FailureReason"]


def test_containers_of_a_package_are_a_pipeline(deployment: Deployment) -> None:
    cloud = deployment.cloud
    package = cloud.sagemaker.create_model_package(
        ModelPackageName=unique("package"),
        InferenceSpecification={"Containers": containers(deployment, "a", "c")},
    )["ModelPackageArn"]
    model = unique("packaged")
    primary = {"ModelPackageName": package}
    cloud.sagemaker.create_model(ModelName=model, ExecutionRoleArn=ROLE, PrimaryContainer=primary)
    deploy(deployment, model)
    assert invoke(deployment, b"x") == "x|a|text/csv|-|c|text/a|text/last"


def test_a_transform_job_sends_records_through_every_container(deployment: Deployment) -> None:
    cloud, bucket, job = deployment.cloud, deployment.bucket, unique("transform")
    cloud.s3.put_object(Bucket=bucket, Key="in/x.csv", Body=b"1")
    model = create_model(cloud, containers(deployment, "a", "c"))
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/in/"}}
    cloud.sagemaker.create_transform_job(
        TransformJobName=job,
        ModelName=model,
        TransformInput={"DataSource": source, "ContentType": "text/csv"},
        TransformOutput={"S3OutputPath": f"s3://{bucket}/out", "Accept": "text/last"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    waiter = cloud.sagemaker.get_waiter("transform_job_completed_or_stopped")
    waiter.wait(TransformJobName=job, WaiterConfig={"Delay": 1})
    written = cloud.s3.get_object(Bucket=bucket, Key="out/x.csv.out")["Body"].read()
    assert written == b"1|a|text/csv|-|c|text/a|text/last"


def test_models_that_are_refused(deployment: Deployment) -> None:
    parts = containers(deployment, "a", "b")
    with pytest.raises(ClientError, match="runs the containers of a model in series"):
        create_model(deployment.cloud, parts, InferenceExecutionConfig={"Mode": "Direct"})
    parts[0]["ContainerHostname"] = "container-2"
    with pytest.raises(ClientError, match="ContainerHostname must be unique"):
        create_model(deployment.cloud, parts)


def test_serverless_variants_serve_one_container(deployment: Deployment) -> None:
    model = create_model(deployment.cloud, containers(deployment, "first", "second"))
    serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 1}
    variant = {"VariantName": "v", "ModelName": model, "ServerlessConfig": serverless}
    with pytest.raises(ClientError, match=r"ValidationException.*several containers"):
        deployment.cloud.sagemaker.create_endpoint_config(
            EndpointConfigName=model, ProductionVariants=[variant]
        )
