"""A toy model server and the requests that deploy it."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

from tests.local_aws.cloud import ROLE, Cloud, eventually, unique

SERVING_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/serving:1"

SERVER = """
import http.server, json, os, sys, time, uuid

PROCESS = uuid.uuid4().hex  # process ids are the same in every sandbox

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.answer(200, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print("invoked with", body[:20], flush=True)
        if body == b"crash":
            os._exit(3)
        if body == b"fail":
            return self.answer(500, b"the model is unwell")
        if body == b"bad":
            return self.answer(400, b"not a photo")
        if body == b"slow":
            time.sleep(3)
        with open("/opt/ml/model/version") as file:
            version = file.read()
        answer = {
            "version": version,
            "process": PROCESS,
            "accept": self.headers.get("Accept"),
            "type": self.headers.get("Content-Type"),
            "body": body.decode("latin-1"),
            "env": os.environ.get("FLAG"),
        }
        self.answer(200, json.dumps(answer).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        name = "X-Amzn-SageMaker-Custom-Attributes"
        self.send_header(name, self.headers.get(name, ""))
        self.end_headers()
        self.wfile.write(body)

with open("/opt/ml/model/version") as file:
    if file.read() == "broken":
        sys.exit("no weights in here")
port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
# Where /opt/ml cannot be mounted, the server is told its folder as its script's argument is: by its own path.
SERVER = SERVER.replace(
    'open("/opt/ml/model/version")', 'open(os.path.join(os.path.dirname(__file__), "..", "version"))'
)


def pack(version: str) -> bytes:
    """A model.tar.gz that answers with its version."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in (("version", version), ("code/server.py", SERVER)):
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


class Deployment:
    """Models, configurations and one endpoint in a cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.bucket = cloud.bucket()
        self.endpoint = unique("endpoint")
        self.runtime = cloud.client("sagemaker-runtime")

    def model(self, version: str) -> str:
        """A model that answers with its version; its name."""
        key = f"models/{version}/model.tar.gz"
        self.cloud.s3.put_object(Bucket=self.bucket, Key=key, Body=pack(version))
        name = unique("model")
        self.cloud.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=ROLE,
            PrimaryContainer={
                "Image": SERVING_IMAGE,
                "ModelDataUrl": f"s3://{self.bucket}/{key}",
                "Environment": {"FLAG": version},
            },
        )
        return name

    def config(
        self,
        *versions: str,
        weights: tuple[float, ...] = (),
        count: int = 1,
        instance_type: str = "ml.m5.large",
        **more: Any,
    ) -> str:
        """A configuration with one variant per version, v0, v1...; its name."""
        name = unique("config")
        variants = [
            {
                "VariantName": f"v{number}",
                "ModelName": self.model(version),
                "InstanceType": instance_type,
                "InitialInstanceCount": count,
                "InitialVariantWeight": weights[number] if weights else 1.0,
            }
            for number, version in enumerate(versions)
        ]
        self.cloud.sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=variants, **more
        )
        return name

    def deploy(self, *versions: str, **more: Any) -> dict[str, Any]:
        """Create the endpoint and wait; its description."""
        config = self.config(*versions, **more)
        self.cloud.sagemaker.create_endpoint(EndpointName=self.endpoint, EndpointConfigName=config)
        return self.settled()

    def describe(self) -> dict[str, Any]:
        """DescribeEndpoint."""
        return dict(self.cloud.sagemaker.describe_endpoint(EndpointName=self.endpoint))

    def settled(self, seconds: float = 40) -> dict[str, Any]:
        """Wait until nothing goes on; the description."""

        def done() -> Any:
            description = self.describe()
            return description if description["EndpointStatus"] in ("InService", "Failed") else None

        return dict(eventually(done, seconds))

    def ask(self, body: bytes = b"x", **more: Any) -> dict[str, Any]:
        """Invoke; the parsed answer with the variant."""
        answer = self.runtime.invoke_endpoint(EndpointName=self.endpoint, Body=body, **more)
        return {
            **json.loads(answer["Body"].read()),
            "variant": answer["InvokedProductionVariant"],
            "raw": answer,
        }

    def delete(self) -> None:
        """Delete the endpoint, which must not be changing, and wait."""
        self.settled()
        self.cloud.sagemaker.delete_endpoint(EndpointName=self.endpoint)
        self.cloud.sagemaker.get_waiter("endpoint_deleted").wait(
            EndpointName=self.endpoint, WaiterConfig={"Delay": 1}
        )
