"""Loaded by python at its start under `local-aws run`: clients stay on loopback, and the SageMaker SDK waits less.

The SDK sleeps 5 s between two looks at a job. Here a job often ends within seconds, so that the sleep would be most
of the time between an edit of a script and its result.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace

LONGEST_SLEEP = 0.5
"""Seconds between two looks of the SDK's waits; a longer `poll` is not honored."""


def _stay_on_loopback(module: ModuleType) -> None:
    create = module.Session.create_client

    def create_client(self, *arguments, endpoint_url=None, **more):  # type: ignore[no-untyped-def]
        host = (endpoint_url or "").partition("://")[2].partition("/")[0].partition(":")[0]
        if host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")):
            endpoint_url = os.environ.get("AWS_ENDPOINT_URL") or endpoint_url
        return create(self, *arguments, endpoint_url=endpoint_url, **more)

    module.Session.create_client = create_client


def _look_often(module: ModuleType) -> None:
    if os.environ.get("AWS_ENDPOINT_URL"):
        module.time = SimpleNamespace(  # type: ignore[attr-defined]
            time=time.time, sleep=lambda seconds: time.sleep(min(seconds, LONGEST_SLEEP))
        )


_CHANGES = {"botocore.session": _stay_on_loopback, "sagemaker.core.resources": _look_often}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Waits for the import of a module, so that a program without it starts as fast as ever."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        change = _CHANGES.pop(name, None)
        spec = importlib.machinery.PathFinder.find_spec(name, path) if change else None
        if change and spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                change(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _AfterImport())
with contextlib.suppress(ValueError):
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
_next = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
if _next is not None and _next.loader is not None:  # the one that this module took the place of
    _next.loader.exec_module(importlib.util.module_from_spec(_next))
