"""The generated tables of the docs are what the code says, and every link leads somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import operations, reference

ROOT = reference.ROOT
LINK = re.compile(r"\]\(((?:\.\./)*[\w-]+(?:/[\w.-]*)*(?:\.\w+)?)(?:#[^)]*)?\)")
TESTS = re.compile(r"`(tests/[\w/.]+)`")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages rendered by `python -m tools.reference` in a process with an Airflow home of its own."""
    program = (
        "import json; from tools import reference as r\n"
        "found = {str(p): r.rendered(p.read_text()) for p in r.pages()}\n"
        "print('PAGES' + json.dumps(found))"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ML_PIPELINE_")}
    environ["AIRFLOW_HOME"] = str(tmp_path_factory.mktemp("airflow"))
    environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.partition("PAGES")[2])
    return found


@pytest.mark.parametrize("page", reference.pages(), ids=lambda path: path.name)
def test_no_page_is_stale(page: Path, fresh: dict[str, str]) -> None:
    assert page.read_text() == fresh[str(page)], f"{page.relative_to(ROOT)} is stale: run make docs"


def test_a_changed_table_is_noticed() -> None:
    page = (ROOT / "docs/reference/server.md").read_text()
    assert (
        reference.rendered(page.replace("| 413 |", "| 999 |")) == page != page.replace("| 413 |", "| 999 |")
    )


def test_an_unknown_generator_is_an_error() -> None:
    with pytest.raises(SystemExit, match="no generator is called nothing"):
        reference.rendered("<!-- generated: nothing -->\n<!-- end -->")


def test_executed_operations_are_implemented() -> None:
    registered = operations.registered()
    for service, names in operations.EXECUTED.items():
        if service in registered:
            assert names - registered[service] == set()


def test_every_link_of_the_docs_leads_to_a_file() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("local_aws/*.md")]:
        for target in LINK.findall(page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def test_every_test_that_a_page_names_exists() -> None:
    for page in ("SECURITY.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/security.md"):
        for name in TESTS.findall((ROOT / page).read_text()):
            assert (ROOT / name).exists(), f"{page} names {name}"


def test_every_setting_of_the_pipeline_is_documented() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    example = (ROOT / ".env.example").read_text()
    names = set(re.findall(r"^(ML_PIPELINE_[A-Z_]+)=", example, re.MULTILINE))
    source = (ROOT / "plugins/ml_pipeline/settings.py").read_text()
    names |= {f"ML_PIPELINE_{name}" for name in re.findall(r'read\("([A-Z_]+)"', source)}
    names |= set(re.findall(r'"(ML_PIPELINE_[A-Z_]+)"', source))
    assert {name for name in names if name not in page} == set()
