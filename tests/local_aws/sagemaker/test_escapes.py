"""Code of a job or model that tries to reach the files of local_aws through the folders that it leaves."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local_aws.execution.processes import namespaces_supported
from tests.local_aws import processing
from tests.local_aws.archives import through_a_long_path, write
from tests.local_aws.cloud import ENDED, ROLE, Cloud, eventually, training_request, unique
from tests.local_aws.serving import Deployment
from tests.local_aws.training import artifact
from tests.local_aws.transform import SERVER as DOUBLER


@pytest.fixture
def secret(cloud: Cloud) -> Path:
    """A folder of local_aws's own, with one file."""
    folder = cloud.state / "secrets"
    folder.mkdir(exist_ok=True)
    (folder / "key").write_text("the secret")
    return folder


def archive_of(files: dict[str, str]) -> bytes:
    """A .tar.gz of texts by name."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


def train(cloud: Cloud, bucket: str, source: str, **more: Any) -> dict[str, Any]:
    request = training_request(unique("escape"), bucket, cloud.put_code(bucket, train=source)) | more
    cloud.sagemaker.create_training_job(**request)
    return cloud.training_ended(request["TrainingJobName"])


def replaced(folder: str, target: Path) -> str:
    """A script that puts a link in place of a folder."""
    return f"""
import os, shutil
os.makedirs({folder!r}, exist_ok=True)
shutil.rmtree({folder!r})
os.symlink({str(target)!r}, {folder!r})
"""


def keys(cloud: Cloud, bucket: str, prefix: str) -> list[str]:
    found = cloud.s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return [entry["Key"] for entry in found]


def test_a_link_in_place_of_the_output_folder(cloud: Cloud, bucket: str, secret: Path) -> None:
    ended = train(cloud, bucket, replaced("/opt/ml/output/data", secret))
    assert ended["TrainingJobStatus"] == "Completed"
    assert keys(cloud, bucket, f"output/{ended['TrainingJobName']}/") == [
        f"output/{ended['TrainingJobName']}/output/model.tar.gz"
    ]


def test_a_link_in_place_of_the_model_folder(cloud: Cloud, bucket: str, secret: Path) -> None:
    ended = train(cloud, bucket, replaced("/opt/ml/model", secret))
    assert artifact(cloud, ended["ModelArtifacts"]["S3ModelArtifacts"]) == {}


def test_a_link_in_place_of_the_failure_file(cloud: Cloud, bucket: str, secret: Path) -> None:
    source = (
        f"import os\nos.symlink({str(secret / 'key')!r}, '/opt/ml/output/failure')\nraise SystemExit(3)\n"
    )
    ended = train(cloud, bucket, source)
    assert ended["TrainingJobStatus"] == "Failed"
    assert "secret" not in ended["FailureReason"].replace(str(secret), "")


def test_a_link_among_checkpoints(cloud: Cloud, bucket: str, secret: Path) -> None:
    source = f"import os\nos.symlink({str(secret / 'key')!r}, '/opt/ml/checkpoints/key')\n" + replaced(
        "/opt/ml/checkpoints/more", secret
    )
    place = f"s3://{bucket}/checkpoints/{unique('x')}"
    ended = train(cloud, bucket, source, CheckpointConfig={"S3Uri": place})
    assert ended["TrainingJobStatus"] == "Completed"
    assert keys(cloud, bucket, place.removeprefix(f"s3://{bucket}/")) == []


def test_links_of_a_processing_job(cloud: Cloud, secret: Path) -> None:
    bucket = cloud.bucket()
    source = replaced("/opt/ml/processing/output/result", secret) + (
        f"os.symlink({str(secret / 'key')!r}, '/opt/ml/output/message')\n"
    )
    ended = processing.run(cloud, processing.request(cloud, bucket, source, ProcessingInputs=[]))
    assert ended["ProcessingJobStatus"] == "Completed"
    assert "ExitMessage" not in ended
    assert keys(cloud, bucket, "result/") == []


def test_modules_of_a_model_do_not_replace_those_of_the_image(cloud: Cloud) -> None:
    deployment = Deployment(cloud)
    evil = "raise SystemExit('the model replaced a module')"
    packed = archive_of({"code/server.py": DOUBLER, "timeit.py": evil, "code/timeit.py": evil})
    cloud.s3.put_object(Bucket=deployment.bucket, Key="model.tar.gz", Body=packed)
    name = unique("model")
    container = {"Image": "x/module:1", "ModelDataUrl": f"s3://{deployment.bucket}/model.tar.gz"}
    cloud.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {
        "VariantName": "v0",
        "ModelName": name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    cloud.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    cloud.sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=name)
    described = deployment.settled()
    assert described["EndpointStatus"] == "InService", described.get("FailureReason")
    deployment.delete()


SERVER = """
import glob, http.server, json, os
def attempt(action):
    try:
        return bool(action())
    except OSError:
        return False
seen = json.dumps({
    "state": attempt(lambda: os.listdir(STATE)),
    "host": attempt(lambda: os.kill(PID, 0) is None),
    "passwd": os.access("/etc/passwd", os.W_OK),
    "core_pattern": os.access("/proc/sys/kernel/core_pattern", os.W_OK),
    "processes": len(glob.glob("/proc/[0-9]*")) > 5,
    "model": os.path.samefile(os.getcwd(), "/opt/ml/model"),
    "work": not attempt(lambda: open("mine", "w").close() is None),
}).encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Length", str(len(seen))); self.end_headers()
        self.wfile.write(seen)
http.server.HTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


def probing_model(cloud: Cloud, bucket: str) -> str:
    """A model whose server answers with what it can reach."""
    source = f"STATE, PID = {str(cloud.state)!r}, {os.getpid()}\n{SERVER}"
    cloud.s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=archive_of({"code/server.py": source}))
    name = unique("probe")
    container = {"Image": "x/serving:1", "ModelDataUrl": f"s3://{bucket}/model.tar.gz"}
    cloud.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    return name


def test_a_model_server_reaches_nothing_of_the_host(cloud: Cloud) -> None:
    if not namespaces_supported():
        pytest.skip("this platform has no mount namespaces for us")
    deployment = Deployment(cloud)
    name = probing_model(cloud, deployment.bucket)
    variant = {
        "VariantName": "v0",
        "ModelName": name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    cloud.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    cloud.sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=name)
    assert deployment.settled()["EndpointStatus"] == "InService"
    answer = deployment.runtime.invoke_endpoint(EndpointName=deployment.endpoint, Body=b"x")
    assert not any(json.loads(answer["Body"].read()).values())
    deployment.delete()


def test_a_transform_reaches_nothing_of_the_host(cloud: Cloud) -> None:
    if not namespaces_supported():
        pytest.skip("this platform has no mount namespaces for us")
    bucket = cloud.bucket()
    name = probing_model(cloud, bucket)
    cloud.s3.put_object(Bucket=bucket, Key="in/a", Body=b"x")
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/in/"}}
    cloud.sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=name,
        TransformInput={"DataSource": source},
        TransformOutput={"S3OutputPath": f"s3://{bucket}/out"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )

    def ended() -> Any:
        found = cloud.sagemaker.describe_transform_job(TransformJobName=name)
        return found if found["TransformJobStatus"] in ENDED else None

    assert eventually(ended)["TransformJobStatus"] == "Completed"
    answer = cloud.s3.get_object(Bucket=bucket, Key="out/a.out")["Body"].read()
    assert not any(json.loads(answer).values())


def test_a_model_archive_that_leaves_its_folder_fails_the_endpoint(cloud: Cloud) -> None:
    deployment = Deployment(cloud)
    outside = cloud.state / "slipped"
    outside.mkdir()
    packed = write(cloud.state / "slip.tar.gz", *through_a_long_path(outside))
    cloud.s3.put_object(Bucket=deployment.bucket, Key="model.tar.gz", Body=packed.read_bytes())
    name = unique("slip")
    container = {"Image": "x/serving:1", "ModelDataUrl": f"s3://{deployment.bucket}/model.tar.gz"}
    cloud.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {
        "VariantName": "v0",
        "ModelName": name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    cloud.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    cloud.sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=name)
    described = deployment.settled()
    assert described["EndpointStatus"] == "Failed"
    assert "cannot be unpacked" in described["FailureReason"] or "leads outside" in described["FailureReason"]
    assert list(outside.iterdir()) == []
    with pytest.raises(ClientError):
        deployment.runtime.invoke_endpoint(EndpointName=deployment.endpoint, Body=b"x")
