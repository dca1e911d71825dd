"""Exit 0 when an address answers 200, else 1 with the reason.

    healthcheck.py URL              the address itself
    healthcheck.py URL COMPONENT    the component's own heartbeat in Airflow's /api/v2/monitor/health

Standard library only: it runs every few seconds in every container, and `airflow jobs check`, which asks the
same, takes seconds of CPU each time.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 5.0


def problem(url: str, component: str | None) -> str | None:
    """Return why the service is unhealthy; None when it is healthy."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            body = answer.read()
    except (urllib.error.URLError, OSError) as error:
        return f"{url}: {error}"
    if component is None:
        return None
    status = (json.loads(body).get(component) or {}).get("status")
    return None if status == "healthy" else f"{component} is {status or 'missing'}"


if __name__ == "__main__":
    reason = problem(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    sys.exit(reason)
