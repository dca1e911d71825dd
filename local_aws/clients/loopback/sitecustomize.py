"""Loaded by python at its start under `local-aws run`: keeps botocore's clients on loopback."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType


class _AfterBotocore(importlib.abc.MetaPathFinder):
    """Waits for the import of botocore.session, so that a program without it starts as fast as ever."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "botocore.session":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        create = module.Session.create_client

        def create_client(self, *arguments, endpoint_url=None, **more):  # type: ignore[no-untyped-def]
            host = (endpoint_url or "").partition("://")[2].partition("/")[0].partition(":")[0]
            if host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")):
                endpoint_url = os.environ.get("AWS_ENDPOINT_URL") or endpoint_url
            return create(self, *arguments, endpoint_url=endpoint_url, **more)

        module.Session.create_client = create_client


sys.meta_path.insert(0, _AfterBotocore())
with contextlib.suppress(ValueError):
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
_next = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
if _next is not None and _next.loader is not None:  # the one that this module took the place of
    _next.loader.exec_module(importlib.util.module_from_spec(_next))
