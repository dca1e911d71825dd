"""Results and endpoint of the last run that `make run` watched to its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "last_run.json"


def save(home: Path, run_id: str, results: Mapping[str, Any]) -> None:
    """Keep a run's results (task -> what it returned). An earlier endpoint still serves after a run without one."""
    deployed = (results.get("deploy") or {}).get("endpoint_name") or endpoint_name(home)
    record = {"run_id": run_id, "endpoint_name": deployed, "results": results}
    new = home / f"{FILE}.new"
    new.write_text(json.dumps(record, indent=1))
    new.replace(home / FILE)


def endpoint_name(home: Path) -> str | None:
    """Return the endpoint that was deployed last, or None when no run has been seen to deploy one."""
    path = home / FILE
    name = json.loads(path.read_text())["endpoint_name"] if path.exists() else None
    return str(name) if name else None
