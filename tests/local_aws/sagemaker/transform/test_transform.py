"""Transform jobs through boto3: a toy server, files cut into records, answers assembled and joined."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.conftest import ENDED, ROLE, Cloud, eventually, unique

SERVER = '''
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    """Doubles the first number of every line; a line `bad` is refused."""
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(200, b"")
    def do_POST(self):
        lines = self.rfile.read(int(self.headers["Content-Length"])).decode().splitlines()
        if "bad" in lines:
            return self.answer(400, b"bad line")
        if self.headers["Content-Type"] == "application/jsonlines":
            out = [json.dumps({"twice": 2 * json.loads(line)["x"]}) for line in lines]
        else:
            out = [str(2 * float(line.split(",")[0])) for line in lines]
        print("answered", len(lines), flush=True)
        self.answer(200, "\\n".join(out).encode())
    def answer(self, status, body):
        self.send_response(status); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
'''


@pytest.fixture(scope="module")
def model(cloud: Cloud) -> str:
    bucket, name = cloud.bucket(), unique("doubler")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("code/server.py")
        member.size = len(SERVER.encode())
        archive.addfile(member, io.BytesIO(SERVER.encode()))
    cloud.s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=packed.getvalue())
    container = {"Image": "x/serving:1", "ModelDataUrl": f"s3://{bucket}/model.tar.gz"}
    cloud.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    return name


def run(
    cloud: Cloud,
    model: str,
    files: dict[str, str],
    source: dict[str, Any],
    target: dict[str, Any],
    **more: Any,
) -> Any:
    bucket, name = cloud.bucket(), unique("transform")
    for key, text in files.items():
        cloud.s3.put_object(Bucket=bucket, Key=f"in/{key}", Body=text.encode())
    location = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/in/"}}
    cloud.sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=model,
        TransformInput={"DataSource": location, **source},
        TransformOutput={"S3OutputPath": f"s3://{bucket}/out", **target},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **more,
    )

    def look() -> Any:
        job = cloud.sagemaker.describe_transform_job(TransformJobName=name)
        return job if job["TransformJobStatus"] in ENDED else None

    job = eventually(look)
    listed = cloud.s3.list_objects_v2(Bucket=bucket, Prefix="out/").get("Contents", [])
    outputs = {
        entry["Key"][4:]: cloud.s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read().decode()
        for entry in listed
    }
    return job, outputs


def test_lines_are_batched_and_assembled_per_file(cloud: Cloud, model: str) -> None:
    job, outputs = run(
        cloud, model, {"a.csv": "1\n2\n3\n", "deep/b.csv": "4\n"},
        {"ContentType": "text/csv", "SplitType": "Line"}, {"AssembleWith": "Line"}, BatchStrategy="MultiRecord",
    )  # fmt: skip
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    assert outputs == {"a.csv.out": "2.0\n4.0\n6.0\n", "deep/b.csv.out": "8.0\n"}
    assert "answered 3" in cloud.log_of(job["TransformJobName"], "/aws/sagemaker/TransformJobs")


def test_csv_input_is_filtered_joined_and_filtered_again(cloud: Cloud, model: str) -> None:
    job, outputs = run(
        cloud, model, {"a.csv": "id1,1\nid2,2\n"},
        {"ContentType": "text/csv", "SplitType": "Line"}, {"AssembleWith": "Line", "Accept": "text/csv"},
        DataProcessing={"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"},
    )  # fmt: skip
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    assert outputs == {"a.csv.out": "id1,2.0\nid2,4.0\n"}


def test_json_lines_are_joined_under_sagemaker_output(cloud: Cloud, model: str) -> None:
    _, outputs = run(
        cloud, model, {"a.jsonl": '{"x": 1}\n{"x": 5}\n'},
        {"ContentType": "application/jsonlines", "SplitType": "Line"}, {"AssembleWith": "Line"},
        DataProcessing={"JoinSource": "Input"}, BatchStrategy="SingleRecord",
    )  # fmt: skip
    assert [json.loads(line) for line in outputs["a.jsonl.out"].splitlines()] == [
        {"x": 1, "SageMakerOutput": {"twice": 2}},
        {"x": 5, "SageMakerOutput": {"twice": 10}},
    ]


def test_a_refused_record_fails_the_job_with_the_reason(cloud: Cloud, model: str) -> None:
    job, _ = run(cloud, model, {"a.csv": "bad"}, {"ContentType": "text/csv"}, {})
    assert job["TransformJobStatus"] == "Failed"
    assert "the container answered status 400: bad line" in job["FailureReason"]


def test_unknown_models_and_filters_are_refused(cloud: Cloud, model: str) -> None:
    with pytest.raises(ClientError, match="Could not find model"):
        run(cloud, "nobody", {}, {}, {})
    with pytest.raises(ClientError, match="is not a JSONPath"):
        run(cloud, model, {}, {"ContentType": "text/csv"}, {}, DataProcessing={"InputFilter": "$[["})
