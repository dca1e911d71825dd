"""The images of endpoints and of jobs as containers: SageMaker's contract, the health check, the build of training."""

from __future__ import annotations

import json
import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launcher.preflight import free_port
from tests.docker import base_images, engine
from tests.docker.stack import wait_until
from tests.model_code.serve import toy_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
NAME = "ml-pipeline-test-serving"


@pytest.fixture(scope="module")
def podman() -> engine.Engine:
    return engine.find()


@pytest.fixture(scope="module")
def image(podman: engine.Engine) -> str:
    # Podman's own format has no HEALTHCHECK.
    tag = "localhost/ml-pipeline-serving:test"
    return base_images.build(podman, "serving", tag, "--format=docker", INDEX=base_images.INDEX)


@pytest.fixture
def server(podman: engine.Engine, image: str, tmp_path: Path) -> Iterator[str]:
    """The address of a container that was started as SageMaker does it: `serve`, the model read-only."""
    model = toy_bundle.write_toy(tmp_path / "model", slow=True)
    for path in [*model.parents[:3], model, *model.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o055)
    port = free_port()
    podman.run("rm", "--force", "--ignore", NAME)
    podman.run(
        "run", "--detach", "--name", NAME, "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges",
        f"--publish=127.0.0.1:{port}:8080", f"--volume={model}:/opt/ml/model:ro", image, "serve",
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: ping(url), 120, f"the server: {podman.run('logs', NAME).stderr}")
        yield url
    finally:
        podman.run("rm", "--force", "--ignore", NAME)


def ping(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def invoke(url: str, photo: bytes) -> str:
    """The class of a photo."""
    request = urllib.request.Request(f"{url}/invocations", photo, {"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.loads(answer.read())["predictions"][0]["class"])


def health(podman: engine.Engine) -> str:
    """Run the image's HEALTHCHECK, as the engine would with a timer; the status of the container after it."""
    podman.run("healthcheck", "run", NAME, check=False)
    state = podman.inspect("container", NAME)["State"]
    return str((state.get("Health") or state["Healthcheck"])["Status"])


def test_image_serves_without_root_and_without_torch(podman: engine.Engine, server: str) -> None:
    assert invoke(server, toy_bundle.photo("red")) == "red"
    identity = podman.run("exec", NAME, "python", "-c", "import os; print(os.getuid())").stdout
    assert identity.strip() == "10001"
    listed = podman.run("exec", NAME, "sh", "-c", "ls /opt/venv/lib/python3.11/site-packages").stdout.split()
    assert "onnxruntime" in listed
    assert not {"torch", "pip", "setuptools"} & set(listed)


def test_sigterm_lets_requests_end(podman: engine.Engine, server: str) -> None:
    answers: list[str] = []

    def ask() -> None:
        answers.append(invoke(server, toy_bundle.photo("red")))

    # Each takes the slow toy a while: some are still computed when the signal comes.
    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    wait_until(lambda: answers, 60, "the first answer")
    podman.run("stop", "--time", "60", NAME)
    for thread in asking:
        thread.join(60)
    assert answers == ["red"] * 8
    assert podman.inspect("container", NAME)["State"]["ExitCode"] == 0
    assert not ping(server)


def test_health_check_turns_unhealthy_and_back(podman: engine.Engine, server: str) -> None:
    wait_until(lambda: health(podman) == "healthy", 60, "healthy")
    first = psutil.Process(podman.inspect("container", NAME)["State"]["Pid"])
    hung = [first, *first.children(recursive=True)]
    for process in hung:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: health(podman) == "unhealthy", 180, "unhealthy")
    finally:
        for process in hung:
            os.kill(process.pid, signal.SIGCONT)
    wait_until(lambda: health(podman) == "healthy", 60, "healthy again")


def test_training_image_builds_on_a_stand_in_for_awss_container(podman: engine.Engine) -> None:
    registry, _, tag = base_images.pytorch(podman).rpartition("/pytorch:")
    name = "localhost/ml-pipeline-training:test"
    base_images.build(podman, "training", name, REGISTRY=registry, TAG=tag)
    code = "import torch, openvino, onnxscript; print(torch.__version__)"
    said = podman.run("run", "--rm", "--network=none", name, "python", "-c", code).stdout
    assert said.startswith("2.")
