"""The serving image's packages, installed into an environment of their own, serve a model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.preflight import free_port
from tests.docker import compose
from tests.docker.dockerfile import instructions
from tests.docker.stack import wait_until
from tests.model_code.serve import toy_bundle

pytestmark = pytest.mark.slow
DOCKERFILE = compose.ROOT / "docker/serving/Dockerfile"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the Dockerfile's RUN instruction with /opt/venv in a folder of the test."""
    folder = tmp_path_factory.mktemp("image")
    for name, copied in (
        ("requirements.lock", "requirements.lock"),
        ("docker/pins.py", "docker/pins.py"),
        ("docker/serving/packages.txt", "docker/packages.txt"),
    ):
        target = folder / copied
        target.parent.mkdir(exist_ok=True)
        shutil.copy(compose.ROOT / name, target)
    (command,) = (i.text for i in instructions(DOCKERFILE) if i.name == "RUN" and "venv" in i.text)
    command = command.replace("/opt/venv", str(folder / "venv")).replace("${RUNTIME}", "")
    # The index that this machine uses, wherever it is.
    command = command.replace('--extra-index-url "${INDEX}"', "")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-ec", command], cwd=folder, env=env, capture_output=True, text=True)
    if re.search(r"No matching distribution|Could not find a version|connection", done.stderr):
        pytest.skip(f"no package index can be reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder / "venv"


@pytest.fixture
def server(environment: Path, tmp_path: Path) -> Iterator[str]:
    model = tmp_path / "model"
    toy_bundle.write_toy(model)
    port = free_port()
    log = tmp_path / "log"
    env = {
        "PATH": f"{environment / 'bin'}:/usr/bin:/bin",
        "PYTHONPATH": str(compose.ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MODEL_DIR": str(model),
        "SAGEMAKER_BIND_TO_PORT": str(port),
    }
    with log.open("wb") as file:
        # The last --host counts: a test listens on loopback only.
        process = subprocess.Popen(
            [compose.ROOT / "docker/serving/serve.sh", "serve", "--host", "127.0.0.1"],
            env=env, cwd=tmp_path, stdout=file, stderr=file,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: process.poll() is not None or _answers(f"{url}/ping"), 60, "the server")
        assert process.poll() is None, log.read_text()
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_environment_has_no_torch(environment: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", environment / "bin/python", "freeze"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    lock = (compose.ROOT / "requirements.lock").read_text().splitlines()
    assert set(listed.replace("_", "-").split()) <= {line.split(" ")[0] for line in lock}
    assert "torch" not in listed
    assert "onnxruntime==" in listed


def test_a_photo_is_classified(server: str) -> None:
    request = urllib.request.Request(
        f"{server}/invocations", data=toy_bundle.photo("red"), headers={"Content-Type": "image/jpeg"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert b"red" in answer.read()
