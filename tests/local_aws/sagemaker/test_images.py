"""AWS's public images: run by an interpreter of this machine, or refused with the list of what is known."""

from __future__ import annotations

import io
import json
import re
import tarfile
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local_aws.execution import images
from local_aws.execution.images import CATALOG, Contract
from tests.local_aws.archives import wheel
from tests.local_aws.cloud import ROLE, Cloud, training_request, unique
from tests.local_aws.serving import Deployment

DLC = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
INFERENCE = """
import json
def model_fn(model_dir):
    return json.load(open(model_dir + "/weights.json"))
def input_fn(body, content_type):
    assert content_type == "application/json"
    return json.loads(body)
def predict_fn(data, model):
    return data * model["factor"]
def output_fn(prediction, accept):
    return json.dumps({"prediction": prediction}), accept
"""


@pytest.mark.parametrize(
    ("uri", "contract", "name"),
    [
        (f"{DLC}/pytorch-training:2.5.1-cpu-py311-ubuntu22.04-sagemaker", Contract.SCRIPT, "pytorch-training"),
        (f"{DLC}/pytorch-inference:2.5.1-cpu-py311-ubuntu22.04-sagemaker", Contract.SERVER, "pytorch-inference"),
        ("885854791233.dkr.ecr.us-east-1.amazonaws.com/sagemaker-distribution-prod:3.2.0-cpu", Contract.PROCESSING,
         "distribution"),
        ("public.ecr.aws/sagemaker/sagemaker-distribution:3.2.0-cpu", Contract.SCRIPT, "distribution-public"),
        (f"{DLC}/huggingface-pytorch-training:2.5.1-transformers4.49.0-gpu-py311", Contract.SCRIPT,
         "huggingface-pytorch-training"),
        ("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3", Contract.SCRIPT,
         "scikit-learn"),
        ("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1", Contract.SERVER, "xgboost"),
    ],
)  # fmt: skip
def test_names_of_tutorials_are_known(
    uri: str, contract: Contract, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "missing_packages", lambda _interpreter, _packages: ())
    assert images.load(CATALOG).require(uri, contract).name == name


def test_an_image_whose_packages_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "missing_packages", lambda _interpreter, packages: packages)
    with pytest.raises(Exception, match=r"xgboost is not installed in .*\[images\.xgboost\]"):
        images.load(CATALOG).require(f"{DLC}/sagemaker-xgboost:1.7-1", Contract.SCRIPT)


def test_an_unknown_image_is_refused_with_what_is_known(cloud: Cloud, bucket: str) -> None:
    request = training_request(unique("unknown"), bucket, "s3://b/k")
    request["AlgorithmSpecification"]["TrainingImage"] = f"{DLC}/tensorflow-training:2.16"
    with pytest.raises(ClientError) as caught:
        cloud.sagemaker.create_training_job(**request)
    message = caught.value.response["Error"]["Message"]
    assert "tensorflow-training:2.16" in message
    assert "pytorch-training" in message
    assert "images.toml" in message
    assert "\n" not in message


def test_torchrun_is_there_and_mpi_says_that_it_is_not(cloud: Cloud, bucket: str) -> None:
    source = """
import shutil, subprocess
print("torchrun", bool(shutil.which("torchrun")))
if shutil.which("mpirun").startswith("/opt/ml"):
    done = subprocess.run(["mpirun", "-n", "2", "true"], capture_output=True, text=True)
    print("mpirun", done.returncode, done.stderr)
"""
    request = training_request(unique("tools"), bucket, cloud.put_code(bucket, train=source))
    cloud.sagemaker.create_training_job(**request)
    assert cloud.training_ended(request["TrainingJobName"])["TrainingJobStatus"] == "Completed"
    lines = cloud.log_of(request["TrainingJobName"])
    assert "torchrun True" in lines
    assert not [line for line in lines if line.startswith("mpirun")] or any(
        line.startswith("mpirun 127 MPI is not installed") for line in lines
    )


def deploy(cloud: Cloud, files: dict[str, bytes], **environment: str) -> tuple[Deployment, dict[str, Any]]:
    """Deploy a model.tar.gz on AWS's PyTorch inference image; the deployment and the endpoint's description."""
    deployment = Deployment(cloud)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    cloud.s3.put_object(Bucket=deployment.bucket, Key="model.tar.gz", Body=packed.getvalue())
    name = unique("tutorial")
    container = {
        "Image": f"{DLC}/pytorch-inference:2.5.1-cpu-py311-ubuntu22.04-sagemaker",
        "ModelDataUrl": f"s3://{deployment.bucket}/model.tar.gz",
        "Environment": environment,
    }
    cloud.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {
        "VariantName": "v0",
        "ModelName": name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    cloud.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    cloud.sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=name)
    return deployment, deployment.settled()


def ask(deployment: Deployment, body: bytes, kind: str = "application/json") -> Any:
    """Invoke the endpoint; the answer, read as JSON."""
    answer = deployment.runtime.invoke_endpoint(EndpointName=deployment.endpoint, Body=body, ContentType=kind)
    return json.loads(answer["Body"].read())


def test_an_inference_script_of_a_tutorial_is_served(cloud: Cloud) -> None:
    files = {"code/inference.py": INFERENCE.encode(), "weights.json": b'{"factor": 3}'}
    deployment, described = deploy(
        cloud, files, SAGEMAKER_PROGRAM="inference.py", SAGEMAKER_SUBMIT_DIRECTORY="/opt/ml/model/code"
    )
    assert described["EndpointStatus"] == "InService", described.get("FailureReason")
    assert ask(deployment, b"14") == {"prediction": 42}
    with pytest.raises(ClientError, match="AssertionError"):
        ask(deployment, b"14", "text/csv")
    deployment.delete()


def test_requirements_of_a_model_are_installed_before_it_is_served(cloud: Cloud) -> None:
    files = {
        "code/inference.py": b"import trebled\n"
        + INFERENCE.replace('model["factor"]', "trebled.FACTOR").encode(),
        "code/requirements.txt": b"./trebled-1.0-py3-none-any.whl\nboto3\n",
        "code/trebled-1.0-py3-none-any.whl": wheel("trebled", "FACTOR = 3\n"),
        "weights.json": b"{}",
    }
    deployment, described = deploy(cloud, files)
    assert described["EndpointStatus"] == "InService", described.get("FailureReason")
    assert ask(deployment, b"14") == {"prediction": 42}
    deployment.delete()


@pytest.mark.parametrize(
    ("files", "environment", "reason"),
    [
        (
            {"code/inference.py": b"", "code/requirements.txt": b"./absent-1.0-py3-none-any.whl"},
            {},
            r"code/requirements.txt cannot be installed: .*absent-1.0",
        ),
        ({"weights.bin": b""}, {}, r"no code/inference.py that defines model_fn, and no model.pt"),
        ({"config.json": b"{}"}, {"HF_TASK": "text-classification"}, r"lacks the default handler of the Hugging Face"),
    ],
    ids=["requirements", "no script", "hugging face"],
)  # fmt: skip
def test_a_model_that_cannot_be_served_says_what_it_lacks(
    cloud: Cloud, files: dict[str, bytes], environment: dict[str, str], reason: str
) -> None:
    deployment, described = deploy(cloud, files, **environment)
    assert described["EndpointStatus"] == "Failed"
    assert re.search(reason, described["FailureReason"], re.DOTALL)
    deployment.delete()
