"""A toy model for transform jobs."""

from __future__ import annotations

import io
import tarfile

from tests.local_aws.cloud import ROLE, Cloud, unique

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


def doubler(cloud: Cloud) -> str:
    """Create a model that doubles numbers; its name."""
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
