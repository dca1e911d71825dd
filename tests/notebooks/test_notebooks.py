"""The notebooks run from top to bottom against a real local_aws, and are committed without outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from launcher import notebook
from launcher.settings import REPOSITORY, Settings
from tests.e2e.conftest import make_laptop
from tests.e2e.params.stage import Stage, stage_on

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
CELL_SECONDS = 600


def test_there_are_notebooks_for_a_script_a_run_and_an_endpoint() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["1_", "2_", "3_"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_committed(path: Path) -> None:
    document = json.loads(path.read_text())
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert not [cell for cell in cells if cell["outputs"] or cell["execution_count"]]
    assert any("plt.show()" in "".join(cell["source"]) for cell in cells)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Airflow and local_aws with one finished run."""
    with stage_on(make_laptop(tmp_path_factory.mktemp("notebooks"))) as stage:
        stage.run()
        yield stage


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.from_environ(stage.laptop.environ)
    for name, value in notebook.environment(settings, "token").items():
        monkeypatch.setenv(name, value)
    document = nbformat.read(path, as_version=4)
    client = NotebookClient(
        document,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    plots = [
        output
        for cell in document.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(plots) >= 2
