"""Scripts that training jobs run in the tests, and what they leave."""

from __future__ import annotations

import io
import tarfile

from tests.local_aws.cloud import Cloud

SLEEPER = """
import os, signal, sys, time
def end(*_):
    open(os.path.join(os.environ["SM_MODEL_DIR"], "saved.txt"), "w").write("at the end")
    print("saved"); sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("running")
while True: time.sleep(0.05)
"""

SPOT = """
import os, time
folder = "/opt/ml/checkpoints"
known = sorted(os.listdir(folder))
print("attempt with", known)
if not known:
    open(os.path.join(folder, "step-1"), "w").write("half")
    print("waiting")
    while True: time.sleep(0.05)
open(os.path.join(os.environ["SM_MODEL_DIR"], "from"), "w").write(open(os.path.join(folder, known[0])).read())
"""


def artifact(cloud: Cloud, uri: str) -> dict[str, bytes]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    packed = io.BytesIO(cloud.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    with tarfile.open(fileobj=packed) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]
