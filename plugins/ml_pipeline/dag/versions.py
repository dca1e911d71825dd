"""The versions of Airflow and of its Amazon provider that work: what needs them refuses others in one line."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

# Distribution -> (the first version that works, the first that is not known to; None: no bound).
SUPPORTED: dict[str, tuple[str, str | None]] = {
    "apache-airflow": ("3.2.1", "3.5"),
    "apache-airflow-providers-amazon": ("9.34", None),
}


class VersionsError(ImportError):
    """A package is outside its range; the message names the range and the fix."""


def check_versions(installed: Mapping[str, str] | None = None) -> None:
    """Refuse an Airflow or a provider outside its range, instead of failing at some import of the DAGs.

    Args:
        installed: Versions by distribution; None: those of this environment.

    Raises:
        VersionsError: One is outside its range.
    """
    from packaging.version import Version

    for name, (first, beyond) in SUPPORTED.items():
        version = Version(installed[name] if installed is not None else metadata.version(name))
        if version < Version(first) or (beyond and version >= Version(beyond)):
            wanted = f"{name}>={first}" + (f",<{beyond}" if beyond else "")
            raise VersionsError(
                f'ml-pipeline works with {wanted} and {version} is here: pip install "{wanted}"'
            )
