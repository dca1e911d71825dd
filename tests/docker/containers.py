"""Starts the services of docker-compose.yaml as containers, each with exactly its options: what Docker Compose does.

podman-compose 1.6 does not wait for health without systemd and starts services out of order, hence this runner. An
option that it does not know is an error.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.docker import compose
from tests.docker.engine import Engine
from tests.docker.stack import wait_until

READY_SECONDS = 240.0
_CONDITIONS = ("service_healthy", "service_completed_successfully")


class UnknownOptionError(Exception):
    """The file has an option that the runner does not know."""


def active(document: Mapping[str, Any], profiles: set[str]) -> list[str]:
    """Return the services of `profiles`, each after those that it depends on."""
    services = document["services"]
    chosen = {name for name, s in services.items() if not s.get("profiles") or profiles & set(s["profiles"])}
    ordered: list[str] = []

    def add(name: str) -> None:
        for other in services[name].get("depends_on", {}):
            if other in chosen and other not in ordered:
                add(other)
        if name not in ordered:
            ordered.append(name)

    for name in services:
        if name in chosen:
            add(name)
    return ordered


def arguments(name: str, service: Mapping[str, Any], project: str, image: str) -> list[str]:
    """Return the words after `podman run` for a service.

    Raises:
        UnknownOptionError: The service has an option without a counterpart here.
    """
    unknown = set(service) - set(_OPTIONS) - {"image", "build", "profiles", "depends_on", "command"}
    if unknown:
        raise UnknownOptionError(f"{name}: {', '.join(sorted(unknown))}")
    words = ["--detach", "--name", f"{project}-{name}", "--hostname", name, "--read-only-tmpfs=false"]
    for option, value in service.items():
        if option in _OPTIONS:
            words += _OPTIONS[option](value, name, project)
    return [*words, image, *service.get("command", [])]


def _each(flag: str) -> Callable[[Any, str, str], list[str]]:
    return lambda values, _name, _project: [f"{flag}={value}" for value in values]


def _one(flag: str) -> Callable[[Any, str, str], list[str]]:
    return lambda value, _name, _project: [
        f"{flag}={str(value).lower() if isinstance(value, bool) else value}"
    ]


def _volumes(mounts: list[Any], _name: str, project: str) -> list[str]:
    words = []
    for mount in mounts:
        if isinstance(mount, str):
            volume, target = mount.split(":")
            words.append(f"--volume={project}-{volume}:{target}")
            continue
        source = compose.ROOT / mount["source"]
        if mount["bind"]["create_host_path"]:
            source.mkdir(parents=True, exist_ok=True)
        assert source.exists(), f"{source} is mounted and does not exist"
        words.append(f"--volume={source}:{mount['target']}{':ro' if mount.get('read_only') else ''}")
    return words


def _health(check: dict[str, Any], _name: str, _project: str) -> list[str]:
    kind, *words = check["test"]
    # Podman 4.3 puts CMD before a JSON list itself.
    command = json.dumps(words) if kind == "CMD" else words[0]
    names = {
        "interval": "interval",
        "timeout": "timeout",
        "retries": "retries",
        "start_period": "start-period",
    }
    return [
        f"--health-cmd={command}",
        *(f"--health-{names[key]}={check[key]}" for key in check if key != "test"),
    ]


def _limits(deploy: dict[str, Any], _name: str, _project: str) -> list[str]:
    limits = deploy["resources"]["limits"]
    flags = {"cpus": "--cpus", "memory": "--memory", "pids": "--pids-limit"}
    return [f"{flags[key]}={value}" for key, value in limits.items()]


def _logging(how: dict[str, Any], _name: str, _project: str) -> list[str]:
    # Podman keeps one file of at most max-size; Docker keeps max-file of them.
    kept = {key: value for key, value in how["options"].items() if key != "max-file"}
    return [f"--log-driver={how['driver']}", *(f"--log-opt={key}={value}" for key, value in kept.items())]


_OPTIONS: dict[str, Callable[[Any, str, str], list[str]]] = {
    "init": _one("--init"),
    "read_only": _one("--read-only"),
    "cap_drop": _each("--cap-drop"),
    "security_opt": lambda values, _name, _project: [
        f"--security-opt={v.removesuffix(':true')}" for v in values
    ],
    "restart": _one("--restart"),
    "logging": _logging,
    "environment": lambda values, _name, _project: [f"--env={key}={value}" for key, value in values.items()],
    # An empty list takes away the image's entry point.
    "entrypoint": lambda words, _name, _project: [f"--entrypoint={json.dumps(words) if words else ''}"],
    "networks": lambda names, name, project: [
        f"--network={project}-{network}:alias={name}" for network in names
    ],
    "user": _one("--user"),
    "volumes": _volumes,
    "tmpfs": _each("--tmpfs"),
    "shm_size": _one("--shm-size"),
    "ports": _each("--publish"),
    "healthcheck": _health,
    "deploy": _limits,
    "stop_grace_period": lambda value, _name, _project: [f"--stop-timeout={seconds(value)}"],
}


def seconds(duration: str) -> int:
    """Return the whole seconds of a duration of the file: "2m" -> 120."""
    number, unit = re.fullmatch(r"(\d+)(s|m|h)", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


@dataclass
class Containers:
    """The containers of one project.

    environ: the .env of this stack. images: the image that stands for each that the file names.
    """

    engine: Engine
    project: str
    environ: Mapping[str, str]
    images: Mapping[str, str]
    document: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.document = compose.load(self.environ)

    @property
    def services(self) -> list[str]:
        return active(self.document, set(self.environ["COMPOSE_PROFILES"].split(",")))

    def up(self) -> None:
        """Create networks and volumes, and start every service once those that it depends on are ready."""
        for network, options in self.document["networks"].items():
            if not self.engine.has("network", f"{self.project}-{network}"):
                internal = ["--internal"] if options.get("internal") else []
                self.engine.run("network", "create", *internal, f"{self.project}-{network}")
        for volume in self.document["volumes"]:
            if not self.engine.has("volume", f"{self.project}-{volume}"):
                self.engine.run("volume", "create", f"{self.project}-{volume}")
        for name in self.services:
            service = self.document["services"][name]
            for other, how in service.get("depends_on", {}).items():
                if other in self.services:
                    self.wait(other, how["condition"])
            image = self.images[service["image"].partition(":")[0]]
            self.engine.run("run", *arguments(name, service, self.project, image), cwd=compose.ROOT)
        for name in self.services:
            if "healthcheck" in self.document["services"][name]:
                self.wait(name, "service_healthy")

    def wait(self, name: str, condition: str) -> None:
        """Wait for a condition of depends_on. Raises AssertionError with the end of the log when it cannot come."""
        assert condition in _CONDITIONS, condition
        if condition == "service_healthy":
            wait_until(lambda: self.healthy(name), READY_SECONDS, f"{name}\n{self.log(name)[-3000:]}")
            return
        code = self.engine.run("wait", self.container(name), timeout=READY_SECONDS).stdout.strip()
        assert code == "0", f"{name} ended with {code}: {self.log(name)[-3000:]}"

    def healthy(self, name: str) -> bool:
        """Run the health check of a service, as the engine would with a timer."""
        return self.engine.run("healthcheck", "run", self.container(name), check=False).returncode == 0

    def container(self, name: str) -> str:
        return f"{self.project}-{name}"

    def log(self, name: str) -> str:
        done = self.engine.run("logs", self.container(name), check=False)
        return done.stdout + done.stderr

    def state(self, name: str) -> dict[str, Any]:
        state: dict[str, Any] = self.engine.inspect("container", self.container(name))["State"]
        return state

    def execute(self, name: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a container."""
        return self.engine.run("exec", self.container(name), *words, check=check)

    def kill(self, name: str) -> None:
        """Kill a service's first process behind the engine's back, and wait until the engine has started another."""
        pid = self.state(name)["Pid"]
        os.kill(pid, signal.SIGKILL)

        def restarted() -> bool:
            state = self.state(name)
            return state["Running"] and state["Pid"] not in (0, pid)

        wait_until(restarted, 60, f"the restart of {name}")

    def down(self, volumes: bool = False) -> None:
        """Stop every service, dependents first, with its grace period; remove containers and networks."""
        for name in reversed(self.services):
            if self.engine.has("container", self.container(name)):
                self.engine.run("stop", self.container(name), timeout=180)
                self.engine.run("rm", "--force", self.container(name))
        for network in self.document["networks"]:
            self.engine.run("network", "rm", "--force", f"{self.project}-{network}", check=False)
        if volumes:
            for volume in self.document["volumes"]:
                self.engine.run("volume", "rm", "--force", f"{self.project}-{volume}", check=False)

    def unclean(self) -> Iterator[str]:
        """Yield the services whose process did not end within its grace period (SIGKILL: 137)."""
        for name in self.services:
            if self.engine.has("container", self.container(name)) and self.state(name)["ExitCode"] == 137:
                yield name
