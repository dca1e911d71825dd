"""The SageMaker SDK v3, given an address, credentials, a role, a region and a bucket: train, tune, deploy."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.local_aws.cloud import Signing, unique
from tests.local_aws.transform import SERVER

CLIENT = Path(__file__).with_name("sdk_v3_client.py")
SCRIPT = """
import argparse, os
import torch
parser = argparse.ArgumentParser(); parser.add_argument("--lr", type=float); options = parser.parse_args()
layer = torch.nn.Linear(2, 1)
torch.optim.SGD(layer.parameters(), lr=options.lr)
torch.save(layer.state_dict(), os.path.join(os.environ["SM_MODEL_DIR"], "layer.pt"))
assert os.listdir(os.environ["SM_CHANNEL_TRAIN"]) == ["a"]
print("score=%.4f" % options.lr)
"""


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_train_tune_deploy_and_invoke(signing: Signing, tmp_path: Path) -> None:
    bucket = signing.bucket()
    signing.s3.put_object(Bucket=bucket, Key="train/a", Body=b"a")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("code/server.py")
        member.size = len(SERVER.encode())
        archive.addfile(member, io.BytesIO(SERVER.encode()))
    signing.s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=packed.getvalue())
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.py").write_text(SCRIPT)
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": signing.url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": signing.key.id,
        "AWS_SECRET_ACCESS_KEY": signing.key.secret,
        "HOME": str(tmp_path),
    }
    argv = [sys.executable, str(CLIENT), bucket, str(source), f"s3://{bucket}/model.tar.gz", unique("x")[2:]]
    ran = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=400, check=False)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, ran.stdout[-2000:] + ran.stderr[-4000:]
    found = json.loads(lines[0].removeprefix("FOUND "))
    assert found["trained"].endswith("/output/model.tar.gz")
    assert (
        signing.sagemaker.describe_training_job(TrainingJobName=found["best"])["TrainingJobStatus"]
        == "Completed"
    )
    assert found["answer"] == "8.0"
