from pathlib import Path
from typing import Any

import pytest
import torch

from model_code.train.checkpoints import Checkpoints, CorruptCheckpoint, fingerprint, read, write


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "weights": {"a": torch.arange(3.0)},
        "epoch": 2,
        "history": [{"loss": 0.5}],
        "none": None,
    }
    write(tmp_path / "x.ckpt", state)
    found = read(tmp_path / "x.ckpt")
    assert torch.equal(found["weights"]["a"], state["weights"]["a"])
    assert {**found, "weights": None} == {**state, "weights": None}
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


@pytest.mark.parametrize("length", [0, 10, 30, 60, 200, -1])
def test_any_cut_is_noticed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.ckpt"
    write(path, {"weights": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CorruptCheckpoint):
        read(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    write(path, {"weights": torch.zeros(100)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptCheckpoint, match="checksum"):
        read(path)


def test_a_damaged_one_is_skipped_for_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(tmp_path, "fit")
    for step in (1, 2, 3):
        checkpoints.save(step, {"step": step})
    files = sorted((tmp_path / "fit").iterdir())
    assert [path.name for path in files] == ["step-000000000002.ckpt", "step-000000000003.ckpt"]
    files[-1].write_bytes(files[-1].read_bytes()[:-7])
    (tmp_path / "fit" / ".partial").write_bytes(b"half")
    assert Checkpoints(tmp_path, "fit").latest() == {"step": 2}
    assert "skipping" in capsys.readouterr().err
    files[0].write_bytes(b"")
    assert Checkpoints(tmp_path, "fit").latest() is None


def test_kills_while_writing_leave_no_more_than_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*paths: object) -> None:
        raise KeyboardInterrupt

    checkpoints = Checkpoints(tmp_path, "fit")
    for step in (1, 2, 3):
        with monkeypatch.context() as interrupted:
            interrupted.setattr("model_code.train.checkpoints.os.replace", killed)
            with pytest.raises(KeyboardInterrupt):
                checkpoints.save(step, {"step": step})
        assert len(list((tmp_path / "fit").iterdir())) == 1
    checkpoints.save(4, {"step": 4})
    assert [path.name for path in (tmp_path / "fit").iterdir()] == ["step-000000000004.ckpt"]


def test_another_fit_is_never_taken_for_ones_own(tmp_path: Path) -> None:
    Checkpoints(tmp_path, fingerprint("fit", {"rate": 1})).save(1, {"step": 1})
    assert Checkpoints(tmp_path, fingerprint("fit", {"rate": 2})).latest() is None
    assert fingerprint("a", {"x": 1, "y": 2}) == fingerprint("a", {"y": 2, "x": 1})


def test_saving_goes_by_the_clock(tmp_path: Path) -> None:
    now = 0.0
    checkpoints = Checkpoints(tmp_path, "fit", seconds=30, clock=lambda: now)
    assert not checkpoints.due()
    now = 30.0
    assert checkpoints.due()
    checkpoints.save(1, {})
    assert not checkpoints.due()


def test_only_one_rank_writes_and_none_without_a_folder(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "fit", writes=False).save(1, {})
    assert list(tmp_path.iterdir()) == []
    nowhere = Checkpoints(None, "fit", seconds=0)
    assert not nowhere.due()
    nowhere.save(1, {})
    assert nowhere.latest() is None
