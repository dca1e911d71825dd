"""Services with old code are never mistaken for the code on disk."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from launcher import run, services
from launcher.settings import Settings


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("launcher", "local_aws", "model_code", "plugins"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "code.py").write_text("x = 1\n")
    (tmp_path / "requirements.lock").write_text("torch==1\n")
    monkeypatch.setattr(services, "REPOSITORY", tmp_path)
    return tmp_path


@pytest.mark.parametrize("changed", ["plugins/code.py", "plugins/new.toml", "requirements.lock"])
def test_a_change_of_what_services_load_is_seen(repository: Path, changed: str) -> None:
    before = services.code_version()
    assert services.code_version() == before
    (repository / changed).write_text("x = 2\n")
    assert services.code_version() != before


def test_compiled_files_and_tests_change_nothing(repository: Path) -> None:
    before = services.code_version()
    (repository / "plugins" / "__pycache__").mkdir()
    (repository / "plugins" / "__pycache__" / "code.cpython-311.pyc").write_bytes(b"x")
    (repository / "tests").mkdir()
    (repository / "tests" / "test_x.py").write_text("")
    assert services.code_version() == before


@pytest.mark.parametrize(
    ("same", "runs", "stay", "said"),
    [
        (True, 0, True, "already up"),
        (False, 0, False, "restarting them"),
        (False, 1, True, "a run is in progress"),
    ],
)
def test_old_services_end_but_not_under_a_run(
    repository: Path, monkeypatch: pytest.MonkeyPatch, same: bool, runs: int, stay: bool, said: str
) -> None:
    monkeypatch.setattr(run, "connect", lambda settings: SimpleNamespace(active_runs=lambda: runs))
    monkeypatch.setattr(run, "wait_until_ready", lambda settings, console: None)
    console = Console(file=io.StringIO(), width=200)
    state: dict[str, Any] = {"code": services.code_version() if same else "older"}
    assert run.may_stay(Settings.from_environ({}), state, console) is stay
    assert said in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("same", [True, False])
def test_services_that_cannot_start_get_another_chance_with_newer_code(
    repository: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    def ends_again_and_again(*_: Any) -> None:
        raise run.RunError("scheduler ended 3 times")

    monkeypatch.setattr(run, "wait_until_ready", ends_again_and_again)
    console = Console(file=io.StringIO(), width=200)
    settings = Settings.from_environ({})
    if same:
        with pytest.raises(run.RunError, match="scheduler ended 3 times"):
            run.may_stay(settings, {"code": services.code_version()}, console)
    else:
        assert not run.may_stay(settings, {"code": "older"}, console)
