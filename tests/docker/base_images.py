"""Stand-ins for the images that a registry would give: Debian 12, its Python 3.11, PostgreSQL 15 and Redis 7.0.

They answer to the same commands, users and folders as python:3.11-slim, postgres:16 and redis:7.2 do, as far as
docker/ and docker-compose.yaml use them. Packages come from an index in a folder, filled by this machine's pip from
requirements.lock: a build then needs no network, and can take nothing that is not locked.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.docker import compose
from tests.docker.engine import Engine

PYTHON, SERVICES, PYTORCH = (f"localhost/stand-in/{name}:1" for name in ("python", "services", "pytorch"))
# What docker-compose.yaml and the Dockerfiles name, without tag and digest.
STAND_INS = {"python": PYTHON, "postgres": SERVICES, "redis": SERVICES}
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
INDEX = "file:///wheels/simple"

_DEBIAN = (
    "--quiet", "--mode=root", "--variant=minbase", "--include=ca-certificates,python3-venv",
    # As in the slim images: no documentation.
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")),
    '--customize-hook=ln -s /usr/bin/python3.11 "$1/usr/local/bin/python"',
    f'--customize-hook=printf "[global]\\nindex-url = {INDEX}\\n" > "$1/etc/pip.conf"',
)  # fmt: skip
_ENTRYPOINT = """#!/bin/sh
# What postgres:16 does for docker-compose.yaml: an empty PGDATA becomes a cluster with the user and the database.
set -e
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA" && chmod 700 "$PGDATA"
    printf %s "$POSTGRES_PASSWORD" > /tmp/password
    initdb -E UTF8 --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
    pg_ctl --wait --options "-c listen_addresses=''" start
    createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl --wait --mode fast stop
fi
exec "$@"
"""
_SERVICES = f"""FROM {PYTHON}
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends postgresql-15 redis-server \\
    && apt-get clean && rm -rf /var/lib/apt/lists/* \\
    && install -d -o postgres -m 1777 /var/lib/postgresql/data /var/run/postgresql
COPY entrypoint.sh /usr/local/bin/
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin
STOPSIGNAL SIGINT
ENTRYPOINT ["entrypoint.sh"]
CMD ["postgres"]
"""
# torchvision's wheel is for CUDA: its compiled operators on boxes do not load with a CPU torch, and registering their
# shape functions fails. AWS's image has both of one kind.
_PYTORCH = f"""FROM {PYTHON}
COPY pytorch.lock /
RUN python -m venv /opt/pytorch \\
    && /opt/pytorch/bin/pip install --no-cache-dir --no-deps --require-hashes -r /pytorch.lock \\
    && : > /opt/pytorch/lib/python3.11/site-packages/torchvision/_meta_registrations.py
ENV PATH=/opt/pytorch/bin:/usr/local/bin:/usr/bin:/bin
"""
# torch and torchvision with what they import, as AWS's training container has them.
_IN_PYTORCH = (
    "torch", "torchvision", "numpy", "pillow", "protobuf", "packaging", "sympy", "mpmath", "networkx", "jinja2",
    "markupsafe", "fsspec", "filelock", "typing-extensions",
)  # fmt: skip


def python(engine: Engine) -> str:
    """Return the name of an image with Debian's Python 3.11 as /usr/local/bin/python, made once."""
    if engine.has("image", PYTHON):
        return PYTHON
    with tempfile.TemporaryDirectory(dir=engine.folder) as made:
        archive = Path(made, "root.tar")
        done = subprocess.run(["mmdebstrap", *_DEBIAN, "bookworm", archive], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"Debian's packages cannot be had: {done.stderr.strip().splitlines()[-1]}")
        engine.run("import", "--change", 'CMD ["python"]', archive, PYTHON)
    return PYTHON


def services(engine: Engine) -> str:
    """Return the name of an image with PostgreSQL and Redis, made once."""
    if not engine.has("image", SERVICES):
        python(engine)
        _build(engine, SERVICES, _SERVICES, {"entrypoint.sh": _ENTRYPOINT}, "--network", "host")
    return SERVICES


def pytorch(engine: Engine) -> str:
    """Return the name of an image with the locked torch, made once."""
    if not engine.has("image", PYTORCH):
        python(engine)
        pins = compose.script("pins.py")
        lock = "\n".join(pins.pins((compose.ROOT / "requirements.lock").read_text(), _IN_PYTORCH))
        _build(engine, PYTORCH, _PYTORCH, {"pytorch.lock": lock + "\n"}, *offline(engine))
    return PYTORCH


def _build(engine: Engine, tag: str, dockerfile: str, files: dict[str, str], *options: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name, text in {"Dockerfile": dockerfile, **files}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        engine.run("build", *options, "--tag", tag, folder, timeout=1200)


def offline(engine: Engine) -> list[str]:
    """Return the options of a build that has no network and the wheels of the lock."""
    return ["--network", "none", "--volume", f"{wheels(engine)}:/wheels:ro"]


def wheels(engine: Engine) -> Path:
    """Return a folder with the wheels of every image, as an index under simple/; skip where they cannot be had."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the images have Python 3.11: run the tests with it")
    pins = compose.script("pins.py")
    lock = (compose.ROOT / "requirements.lock").read_text()
    lists = [compose.ROOT / "docker" / image / "packages.txt" for image in ("airflow", "serving")]
    names = {name for path in lists for name in pins.requirements(path.read_text())} | {*_IN_PYTORCH, "wheel"}
    locks = {
        "torch.lock": pins.pins(lock, ["torch"]),
        "others.lock": pins.pins(lock, sorted(names - {"torch"})),
    }
    wanted = {name: "\n".join(entries) + "\n" for name, entries in locks.items()}
    folder = engine.folder / "wheels"
    done = folder / "done"
    if done.exists() and done.read_text() == "".join(wanted.values()):
        return folder
    folder.mkdir(exist_ok=True)
    for name, text in wanted.items():
        (folder / name).write_text(text)
        # The default index has torch with CUDA alone.
        index = ["--index-url", CPU_INDEX, "--retries", "1"] if name == "torch.lock" else []
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        argv += ["--only-binary", ":all:", "--dest", str(folder), *index, "-r", str(folder / name)]
        downloaded = subprocess.run(argv, capture_output=True, text=True, timeout=1800)
        if downloaded.returncode != 0:
            pytest.skip(f"the packages of {name} cannot be had: {downloaded.stderr.strip().splitlines()[-1]}")
    for wheel in folder.glob("*.whl"):
        page = folder / "simple" / re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        page.mkdir(parents=True, exist_ok=True)
        (page / "index.html").write_text(f'<a href="../../{wheel.name}">{wheel.name}</a>\n')
    done.write_text("".join(wanted.values()))
    return folder


def build(engine: Engine, name: str, tag: str, *flags: str, **arguments: str) -> str:
    """Build docker/<name>/Dockerfile with its base images replaced by the stand-ins; return `tag`."""
    text = (compose.ROOT / "docker" / name / "Dockerfile").read_text()
    with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
        file.write(re.sub(r"(?m)^FROM (\w+):\S+", lambda match: f"FROM {STAND_INS[match[1]]}", text))
        file.flush()
        python(engine)
        options = [*flags, *(f"--build-arg={key}={value}" for key, value in arguments.items())]
        engine.run(
            "build", "--layers", *offline(engine), *options, "--file", file.name, "--tag", tag, compose.ROOT,
            timeout=1500,
        )  # fmt: skip
    return tag
