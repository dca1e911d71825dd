"""The list of packages, and the verdict about their vulnerabilities."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import supply_chain

SOUND = {"name": "sound", "version": "1.0", "vulns": []}
HOLED = {"name": "holed", "version": "2.0", "vulns": [{"id": "CVE-2026-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("pins", "code", "words"),
    [
        ([SOUND], 0, "1 of 1 packages were looked up"),
        ([SOUND, HOLED], 1, "holed 2.0: CVE-2026-1, fixed in 2.1"),
        ([SOUND, UNKNOWN], 2, "not found at pypi.org: unknown"),
        ([HOLED, UNKNOWN], 1, "1 of 2 packages were looked up"),
    ],
    ids=["sound", "vulnerable", "unknown", "vulnerable and unknown"],
)
def test_a_pin_that_could_not_be_looked_up_does_not_pass(
    pins: list[dict[str, Any]], code: int, words: str
) -> None:
    lines, found = supply_chain.verdict({"dependencies": pins})
    assert found == code
    assert words in "\n".join(lines)


@pytest.mark.slow
def test_the_list_names_every_package_with_its_version(tmp_path: Path) -> None:
    try:
        supply_chain.sbom(Path(sys.prefix), tmp_path / "sbom.json")
    except supply_chain.subprocess.CalledProcessError as error:
        pytest.skip(f"PyPI cannot be reached: {error}")
    document = json.loads((tmp_path / "sbom.json").read_text())
    assert document["bomFormat"] == "CycloneDX"
    versions = {component["name"]: component.get("version") for component in document["components"]}
    assert versions["pytest"] == pytest.__version__
    assert document["metadata"]["component"]["name"] == "ml-pipeline"
