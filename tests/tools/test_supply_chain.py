"""The list of packages, and the verdict about their vulnerabilities."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.web_server import sends, web_server
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
        ([UNKNOWN], 2, "cannot be reached from here"),
        ([HOLED, UNKNOWN], 1, "1 of 2 packages were looked up"),
    ],
    ids=["sound", "vulnerable", "unknown", "nothing", "vulnerable and unknown"],
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


def osv(url: str) -> tuple[str, ...]:
    return ("--vulnerability-service", "osv", "--osv-url", url)


def advisories(request: BaseHTTPRequestHandler) -> None:
    """Answer as api.osv.dev does: one package has a hole."""
    asked = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
    hole = {
        "id": "PYSEC-2026-1",
        "affected": [
            {
                "package": {"name": "holed", "ecosystem": "PyPI"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}],
            }
        ],
    }
    found = {"vulns": [hole]} if asked["package"]["name"] == "holed" else {}
    sends(json.dumps(found).encode())(request)


@pytest.mark.slow
def test_an_audit_asks_the_service_about_every_pin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "requirements.lock"
    digest = f"--hash=sha256:{'0' * 64}"
    lock.write_text(f"sound==1.0 {digest}\nholed==2.0 {digest}\n")
    with web_server({"/query": advisories}) as address:
        code = supply_chain.audit(lock, *osv(f"{address}/query"))
    said = capsys.readouterr()
    if "cannot be installed" in said.err:
        pytest.skip(said.err)
    assert code == 1
    assert "holed 2.0: PYSEC-2026-1, fixed in 2.1" in said.out
    assert "2 of 2 packages were looked up" in said.out
    assert supply_chain.audit(lock, *osv(f"{address}/query")) == 2  # the server is gone
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the advisories cannot be read: ")


def test_an_index_out_of_reach_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    lock = tmp_path / "requirements.lock"
    lock.write_text("sound==1.0\n")
    assert supply_chain.audit(lock) == 2
    assert "is PyPI in reach?" in capsys.readouterr().err
