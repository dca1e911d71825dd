"""Each wheel, alone in a fresh environment, does its work; `make test-matrix` repeats it on every interpreter."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from launcher.preflight import free_port
from ml_pipeline.dag.versions import SUPPORTED
from tests.docker import compose
from tests.docker.stack import wait_until
from tests.local_aws.clients.test_pytest_plugin import write_project
from tests.model_code.serve import toy_bundle
from tools import wheels
from tools.lock import UV

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOT = wheels.ROOT
PYTHONS = ("3.11", "3.12", "3.13")
MATRIX = os.environ.get("MATRIX") == "1"
# Airflow and provider: those of the lock, and the first that ml-pipeline declares.
RELEASES = {"locked": (), "lowest": tuple(f"{name}=={first}" for name, (first, _) in SUPPORTED.items())}


def interpreter(version: str) -> str:
    """The path of a Python, or a skip that says how to get it."""
    if sys.version.startswith(f"{version}."):
        return sys.executable
    if not MATRIX:
        pytest.skip("another interpreter: make test-matrix")
    return find_python(version)


def find_python(version: str) -> str:
    """The path of an installed Python, or a skip."""
    if sys.version.startswith(f"{version}."):
        return sys.executable
    candidates = [
        *Path.home().glob(f".pyenv/versions/{version}.*/bin/python"),
        shutil.which(f"python{version}"),
    ]
    for candidate in candidates:
        if candidate and subprocess.run([str(candidate), "-c", ""], capture_output=True).returncode == 0:
            return str(candidate)
    pytest.skip(f"Python {version} is not installed: pyenv install {version}")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three wheels, and the lock as constraints."""
    folder = tmp_path_factory.mktemp("dist")
    assert len(wheels.build(folder)) == 3
    pins = compose.script("pins.py").entries((ROOT / "requirements.lock").read_text())
    lines = [
        re.sub(r" \\\n.*", "", line) for entry in pins.values() for line in entry.split("\n") if "==" in line
    ]
    (folder / "constraints.txt").write_text("\n".join(line.rstrip(" \\") for line in lines) + "\n")
    return folder


def install(python: str, folder: Path, dist: Path, *names: str, pinned: tuple[str, ...] = ()) -> Path:
    """A fresh environment with one of the wheels (and ours that it needs); its Python.

    By path: on PyPI these names are not ours. pinned: requirements that take the place of the lock's.
    """
    wanted = []
    for name in names:
        distribution, bracket, extra = name.partition("[")
        (wheel,) = dist.glob(f"{distribution.replace('-', '_')}-*.whl")
        wanted.append(f"{wheel}{bracket}{extra}")
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin/python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps = [[*pip, "--constraint", str(dist / "constraints.txt"), *wanted]]
    if pinned:
        # pip looks for hours for packages that fit an Airflow of last spring; uv for seconds.
        steps = [[*pip, UV], [python, "-m", "uv", "pip", "install", "--quiet", *pinned, *wanted]]
    environ = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PIP_CONSTRAINT")
    } | {"VIRTUAL_ENV": str(folder)}
    for argv in steps:
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            break
    if re.search(r"No matching distribution|[Cc]onnection|resolve host", done.stderr):
        pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder / "bin/python"


def clean(**more: str) -> dict[str, str]:
    """An environment without this repository on its path."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "SSL_CERT_FILE") if name in os.environ}
    return {**kept, "PATH": "/usr/bin:/bin", **more}


@pytest.mark.parametrize("version", PYTHONS)
def test_local_aws_trains_a_ten_line_script(version: str, dist: Path, tmp_path: Path) -> None:
    python = install(interpreter(version), tmp_path / "venv", dist, "local-aws")
    command = [str(python.with_name("local-aws"))]
    state = ["--state", str(tmp_path / "state")]
    subprocess.run([*command, "start", *state, "--port", "0"], cwd=tmp_path, env=clean(), check=True)
    try:
        readme = (ROOT / "packages/local-aws/README.md").read_text()
        example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
        assert example is not None
        keys = {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        url = (tmp_path / "state/url").read_text()
        done = subprocess.run(
            [str(python), "-c", example[1]], cwd=tmp_path, env=clean(AWS_ENDPOINT_URL=url, **keys),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "s3://demo/jobs/first/output/model.tar.gz" in done.stdout, done.stderr
    finally:
        subprocess.run([*command, "stop", *state], cwd=tmp_path, env=clean(), check=True)


def test_other_projects_tests_get_the_fixtures_of_local_aws(dist: Path, tmp_path: Path) -> None:
    python = install(sys.executable, tmp_path / "venv", dist, "local-aws[pytest]")
    project = tmp_path / "project"
    project.mkdir()
    write_project(project)
    # As with a conftest.py of a version that pytest did not load the plugin for.
    (project / "conftest.py").write_text('pytest_plugins = ["local_aws.clients.pytest_plugin"]\n')
    argv = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    for _ in range(2):  # with it, and without
        done = subprocess.run(argv, cwd=project, env=clean(), capture_output=True, text=True)
        assert "5 passed" in done.stdout, done.stdout + done.stderr
        (project / "conftest.py").unlink(missing_ok=True)


@pytest.mark.parametrize("version", PYTHONS)
def test_model_code_serving_answers_a_photo(version: str, dist: Path, tmp_path: Path) -> None:
    python = install(interpreter(version), tmp_path / "venv", dist, "model-code[serving]")
    toy_bundle.write_toy(tmp_path / "model")
    port = free_port()
    argv = [str(python), "-m", "model_code.serve", str(tmp_path / "model"), "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(argv, cwd=tmp_path, env=clean(), stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: server.poll() is not None or _pings(url), 60, "the server")
        headers = {"Content-Type": "image/jpeg"}
        request = urllib.request.Request(f"{url}/invocations", toy_bundle.photo(), headers)
        assert urllib.request.urlopen(request, timeout=30).status == 200
    finally:
        server.terminate()
        server.wait(30)
    listed = subprocess.run(
        [str(python), "-m", "pip", "list"], capture_output=True, text=True, check=True
    ).stdout
    assert not re.search(r"^(torch|boto3|apache-airflow) ", listed, re.MULTILINE)


def _pings(url: str) -> bool:
    try:
        return urllib.request.urlopen(f"{url}/ping", timeout=2).status == 200
    except OSError:
        return False


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("version", PYTHONS)
def test_the_dags_of_ml_pipeline_import(version: str, release: str, dist: Path, tmp_path: Path) -> None:
    if release != "locked" and not MATRIX:
        pytest.skip("another Airflow: make test-matrix")
    names, pinned = ("model-code", "ml-pipeline"), RELEASES[release]
    python = install(interpreter(version), tmp_path / "venv", dist, *names, pinned=pinned)
    environ = clean(AIRFLOW_HOME=str(tmp_path / "airflow"), AIRFLOW__CORE__LOAD_EXAMPLES="False")
    environ["LOCAL_AWS_URL"] = "http://127.0.0.1:4566"
    found = subprocess.run(
        [str(python), "-m", "ml_pipeline_dags"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    program = (
        "from airflow.dag_processing.dagbag import DagBag\n"
        f"bag = DagBag({found!r}); print('DAGS', sorted(bag.dags), bag.import_errors)"
    )
    done = subprocess.run(
        [str(python), "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert "'train_and_deploy'" in done.stdout, done.stderr
    assert done.stdout.rstrip().endswith("{}"), done.stdout
    listed = subprocess.run(
        [str(python), "-m", "pip", "list"], capture_output=True, text=True, check=True
    ).stdout
    assert not re.search(r"^(torch|moto|sagemaker) ", listed, re.MULTILINE)
