"""Permissions of the console: Airflow mounts a plugin's application without any."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.configuration import conf
from fastapi import Depends, HTTPException, Request, status

MAIN_DAG = "train_and_deploy"
_SAFE = frozenset({"GET", "HEAD"})

# Every route has one of these; each depends on the user in turn, so a request without a login is refused first.
SEE = Depends(requires_access_dag("GET", param_dag_id=MAIN_DAG))
ASK = Depends(requires_access_dag("GET", DagAccessEntity.RUN, param_dag_id=MAIN_DAG))
CORRECT = Depends(requires_access_dag("PUT", param_dag_id=MAIN_DAG))


def same_origin(request: Request) -> None:
    """Refuse an unsafe request of another origin.

    Airflow's session cookie is SameSite=Lax, which pages of other ports of the same host pass. A request without an
    Origin is no browser's, and has no cookie that a page could have borrowed: it needs a bearer token.

    Raises:
        HTTPException: 403, the origin is another or missing.
    """
    if request.method in _SAFE:
        return
    origin = request.headers.get("origin")
    if origin is None:
        if request.headers.get("authorization", "").lower().startswith("bearer "):
            return
        raise HTTPException(status.HTTP_403_FORBIDDEN, "send an Origin header, or a bearer token")
    own, address = _own_origin(request)
    if origin != own:
        refusal = f"requests from {origin[:200]!r} are refused: open {address}"
        raise HTTPException(status.HTTP_403_FORBIDDEN, refusal)


def _own_origin(request: Request) -> tuple[str, str]:
    """Return the origin of Airflow's own pages, and the address where people open it."""
    # Behind a proxy that ends TLS, only [api] base_url knows the scheme that a browser sees.
    configured: str = conf.get("api", "base_url", fallback="") or ""
    parts = urlsplit(configured)
    if parts.scheme and parts.netloc:
        return f"{parts.scheme}://{parts.netloc}", configured
    seen = f"{request.url.scheme}://{request.headers.get('host', '')}"
    return seen, seen
