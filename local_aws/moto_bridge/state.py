"""moto's state on disk: every backend that a request changed is written before the request is acknowledged.

moto keeps all in memory and its maintainers refuse persistence (getmoto/moto#9755), so its backends are
pickled, one file per service. References from a resource to a backend are stored as the backend's name, so a
restored resource refers to the living backend. Pickles are bound to moto's version: a file of another one is
refused with the way out.
"""

from __future__ import annotations

import copyreg
import importlib.metadata
import io
import json
import logging
import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import serialization
from moto import backends
from moto.core.base_backend import AccountSpecificBackend, BackendDict, BaseBackend

from local_aws.settings import StartupError

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
ATTEMPTS = 5
"""Tries to pickle a backend that another request changes meanwhile."""
LATER_SECONDS = 1.0
FOLLOWERS = {
    "events": ("sqs", "sns"),
    "sns": ("sqs",),
    "cloudwatch": ("sns", "sqs"),
}
"""Services whose requests also change the state of others."""

copyreg.pickle(type(threading.Lock()), lambda _: (threading.Lock, ()))  # type: ignore[arg-type]
copyreg.pickle(type(threading.RLock()), lambda _: (threading.RLock, ()))  # type: ignore[arg-type]
copyreg.pickle(threading.Condition, lambda _: (threading.Condition, ()))
copyreg.pickle(threading.Event, lambda _: (threading.Event, ()))


class MotoState:
    """The files of moto's backends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, threading.RLock] = {}
        self._guard = threading.Lock()
        self._timers: dict[str, threading.Timer] = {}
        self.unsaved: dict[str, str] = {}
        """Services that could not be written, and why."""

    def load(self) -> None:
        """Restore saved backends.

        Raises:
            StartupError: a file was written by another version of moto.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob("*.pickle")):
            with path.open("rb") as file:
                header = json.loads(file.readline())
                known = {"schema_version": SCHEMA_VERSION, "moto": importlib.metadata.version("moto")}
                if header != known:
                    raise StartupError(
                        f"{path} was written with {header}, this is {known}: install that moto, or start with another "
                        "--state folder"
                    )
                for account, region, state in _Unpickler(file).load():
                    backend = backends.get_backend(path.stem)[account][region]
                    vars(backend).clear()
                    vars(backend).update(state)

    @contextmanager
    def changing(self, service: str) -> Iterator[None]:
        """Serialize a request that may change a service, and write its backends before returning."""
        with self._lock(service):
            yield
            self.save(service)
        for follower in _followers(service):
            with self._lock(follower):
                self.save(follower)

    def later(self, service: str) -> None:
        """Write a service's backends within LATER_SECONDS: for frequent data of little importance."""
        with self._guard:
            if service in self._timers:
                return
            timer = threading.Timer(LATER_SECONDS, self._save_later, (service,))
            timer.daemon = True
            self._timers[service] = timer
            timer.start()

    def stop(self) -> None:
        """Write pending backends."""
        with self._guard:
            waiting = list(self._timers)
        for service in waiting:
            self._save_later(service)

    def _save_later(self, service: str) -> None:
        with self._guard:
            timer = self._timers.pop(service, None)
        if timer is not None:
            timer.cancel()
            with self._lock(service):
                self.save(service)

    def save(self, service: str) -> None:
        """Write a service's backends; log and remember a failure, because the request has succeeded."""
        for attempt in range(ATTEMPTS):
            try:
                content = _dump(service)
                break
            except RuntimeError:
                # Changed during iteration by a request that takes no lock, such as a long poll.
                if attempt == ATTEMPTS - 1:
                    raise
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                if service not in self.unsaved:
                    logger.warning(
                        "moto's %s cannot be saved and will not survive a restart: %s", service, error
                    )
                self.unsaved[service] = str(error)
                return
        path = self._folder / f"{service}.pickle"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def _lock(self, service: str) -> threading.RLock:
        with self._guard:
            return self._locks.setdefault(service, threading.RLock())


def _followers(service: str) -> list[str]:
    """Return the services that a request to `service` may change too (CloudFormation: all in use)."""
    if service != "cloudformation":
        return list(FOLLOWERS.get(service, ()))
    in_use = {found.backend.__module__.split(".")[1] for found in BackendDict._instances}
    return sorted(in_use - {service})


def _dump(service: str) -> bytes:
    header = {"schema_version": SCHEMA_VERSION, "moto": importlib.metadata.version("moto")}
    found = [
        (account, region, vars(backend))
        for account, region, backend in backends.get_backend(service).iter_backends()
    ]
    buffer = io.BytesIO()
    buffer.write(json.dumps(header).encode() + b"\n")
    _Pickler(buffer).dump(found)
    return buffer.getvalue()


def _service_of(backend: BaseBackend) -> str:
    """`moto.iam.models.IAMBackend` -> "iam"."""
    return type(backend).__module__.split(".")[1]


def _der(key: Any) -> bytes:
    """Return a private key of `cryptography`, whose objects cannot be pickled."""
    der: bytes = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return der


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, found: Any) -> Any:
        if type(found).__name__ == "ParameterDict":
            # A defaultdict of moto's SSM whose constructor takes other arguments than pickle would give it.
            return type(found), (found.account_id, found.region_name), None, None, iter(found.items())
        return super().reducer_override(found)

    def persistent_id(self, found: Any) -> Any:
        if isinstance(found, BaseBackend):
            return ("backend", _service_of(found), found.account_id, found.region_name)
        if isinstance(found, AccountSpecificBackend):
            return ("account", found.service_name, found.account_id)
        if isinstance(found, BackendDict):
            return ("service", found.service_name)
        if hasattr(found, "private_bytes"):
            return ("key", _der(found))
        return None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, key: Any) -> Any:
        kind, service, *rest = key
        if kind == "key":
            return serialization.load_der_private_key(service, password=None)
        backend = backends.get_backend(service)
        if kind == "service":
            return backend
        if kind == "account":
            return backend[rest[0]]
        return backend[rest[0]][rest[1]]
