"""Refuse requests that a web page sends: foreign hosts (DNS rebinding), foreign origins, cross-site fetches.

A page of another site cannot choose the `Host`, `Origin` and `Sec-Fetch-Site` headers of the requests it makes, and
SDKs send none of the latter two. Every response, moreover, forbids a browser to run what a job wrote.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from local_aws.gateway.responses import Environ, StartResponse, WsgiApp, drain, respond

ADDRESS_VARIABLES = ("LOCAL_AWS_URL", "LOCAL_AWS_PUBLIC_URL")
HARMLESS = (("Content-Security-Policy", "sandbox"), ("X-Content-Type-Options", "nosniff"))
"""Headers of every response: jobs and clients choose the content type of objects and model answers."""
_PREFLIGHT_SECONDS = "600"
_PREFLIGHT_METHODS = "GET, HEAD, PUT, POST, DELETE"


@dataclass(frozen=True)
class Doors:
    """The names under which local_aws may be addressed, and the web origins that may call it.

    Args:
        hosts: host names besides loopback, `*.localhost` and `*.amazonaws.com`; bucket subdomains follow.
        origins: origins (`https://app.example`) that get CORS headers.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    def refusal(self, environ: Environ) -> str | None:
        """Return the reason to refuse a request, or None."""
        host = str(environ.get("HTTP_HOST", ""))
        if host and not self.is_allowed_host(host_name(host)):
            return (
                f"Host {host[:200]!r} is not an address of local_aws: use http://127.0.0.1, or name the address in "
                f"{' or '.join(ADDRESS_VARIABLES)} where local_aws is started"
            )
        origin = str(environ.get("HTTP_ORIGIN", ""))
        if origin in self.origins:
            return None
        if origin and origin not in (f"http://{host}", f"https://{host}"):
            return f"Origin {origin[:200]!r} is foreign: start local_aws with --allow-origin to admit it"
        site = str(environ.get("HTTP_SEC_FETCH_SITE", "")).lower()
        if site in ("cross-site", "same-site") and not _is_signed_link(environ):
            return f"a web page of another site sent this request (Sec-Fetch-Site: {site})"
        return None

    def is_allowed_host(self, name: str) -> bool:
        """Return True for a host name without its port that local_aws answers under."""
        if name in ("localhost", "amazonaws.com") or name.endswith((".localhost", ".amazonaws.com")):
            return True
        if any(name == known or name.endswith(f".{known}") for known in self.hosts):
            return True
        try:
            return ipaddress.ip_address(name.strip("[]")).is_loopback
        except ValueError:
            return False

    def guarded(self, app: WsgiApp) -> WsgiApp:
        """Return `app` behind these doors."""

        def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            reason = self.refusal(environ)
            if reason is not None:
                drain(environ["wsgi.input"])
                body = json.dumps({"__type": "AccessDeniedException", "message": f"local_aws: {reason}"})
                return respond(start_response, 403, body.encode(), "application/json", dict(HARMLESS))
            origin = str(environ.get("HTTP_ORIGIN", ""))
            cors = self._cors(environ, origin) if origin in self.origins else ()
            if cors and environ["REQUEST_METHOD"] == "OPTIONS":
                return respond(start_response, 200, b"", "text/plain", dict((*HARMLESS, *cors)))

            def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
                kept = [pair for pair in headers if not pair[0].lower().startswith("access-control-")]
                return start_response(status, [*kept, *HARMLESS, *cors], *rest)

            return app(environ, start)

        return answer

    def _cors(self, environ: Environ, origin: str) -> tuple[tuple[str, str], ...]:
        wanted = str(environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", ""))
        return (
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Methods", _PREFLIGHT_METHODS),
            ("Access-Control-Expose-Headers", "ETag, x-amz-request-id, x-amz-version-id"),
            ("Access-Control-Max-Age", _PREFLIGHT_SECONDS),
            ("Vary", "Origin"),
            *((("Access-Control-Allow-Headers", wanted),) if wanted.isprintable() and wanted else ()),
        )


def addresses(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the host names of LOCAL_AWS_URL and LOCAL_AWS_PUBLIC_URL."""
    urls = [environ.get(name, "") for name in ADDRESS_VARIABLES]
    return tuple(name for url in urls if (name := (urlsplit(url).hostname or "").lower()))


def host_name(host: str) -> str:
    """Return a Host header's name in lower case, without port and final dot: `A.Localhost.:80` -> `a.localhost`."""
    name = host.strip().lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0].removesuffix(".")


def _is_signed_link(environ: Environ) -> bool:
    """Return True for a click on a presigned address of an object, such as a report's in Airflow.

    The page that holds the link cannot read the answer, and a GET of an object changes nothing. Airflow shows the
    console in a frame that opens no windows, so a frame of this host may hold a report; one of another host may not.
    """
    query = str(environ.get("QUERY_STRING", ""))
    target = environ.get("HTTP_SEC_FETCH_DEST")
    return (
        environ.get("REQUEST_METHOD") == "GET"
        and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        and (target == "document" or (target == "iframe" and environ["HTTP_SEC_FETCH_SITE"] == "same-site"))
        and not environ.get("HTTP_ORIGIN")
        and "Action=" not in query
        and ("%2Fs3%2Faws4_request" in query or "AWSAccessKeyId=" in query)
        and str(environ.get("PATH_INFO", "")).count("/") >= 2
        and not str(environ.get("PATH_INFO", "")).startswith("/_local_aws/")
    )
