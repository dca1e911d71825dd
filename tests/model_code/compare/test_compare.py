"""Several architectures on one data set: what is run, what is read, who is on the frontier, what is shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from model_code.compare import __main__ as command
from model_code.compare import page
from model_code.compare.candidate import Candidate
from model_code.compare.outcome import Outcome, frontier
from model_code.data import sample_data


def outcome(name: str, accuracy: float, milliseconds: float) -> Outcome:
    return Outcome(name, accuracy, (accuracy - 0.1, accuracy), "onnx-int8", milliseconds, 50.0, 3.5)


SMALL, LARGE = outcome("small", 0.8, 2.0), outcome("large", 0.9, 6.0)
SLOW, WORSE = outcome("<slow>", 0.8, 7.0), outcome("worse", 0.7, 2.0)


def test_no_candidate_beats_one_on_the_frontier() -> None:
    assert frontier([LARGE, SLOW, WORSE, SMALL]) == [SMALL, LARGE]
    assert frontier([SLOW]) == [SLOW]
    assert frontier([]) == []


def test_a_million_answers_cost_their_share_of_the_hour() -> None:
    assert SMALL.usd_per_million(0.18) == pytest.approx(1.0)  # 20,000 s of an instance


def test_the_page_escapes_names_and_lists_the_most_accurate_first() -> None:
    html = page.render([SMALL, SLOW, LARGE], 0.18, "<b>pets</b>")
    assert "&lt;slow&gt;" in html
    assert "<slow>" not in html
    assert "<b>pets" not in html
    assert [row[0] for row in page.rows([SMALL, SLOW, LARGE], 0.18)] == ["large", "small", "<slow>"]


def test_a_candidate_names_its_weights(tmp_path: Path) -> None:
    (tmp_path / "lite0.safetensors").touch()
    found = Candidate.parse(f"timm:tf_efficientnet_lite0={tmp_path}/lite0.safetensors")
    assert found.folder == "timm-tf_efficientnet_lite0-lite0"
    assert Candidate.parse("resnet18") == Candidate("resnet18")
    with pytest.raises(ValueError, match="there is no weights file"):
        Candidate.parse("resnet18=/nowhere/at-all.pth")


def test_a_folder_without_photos_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(tmp_path / "none"), "resnet18", "--output", str(tmp_path / "out")]) == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_two_architectures_are_trained_once_and_compared(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    sample_data.draw(photos)
    argv = [
        sys.executable,
        "-m",
        "model_code.compare",
        str(photos),
        "squeezenet1_1",
        "mobilenet_v3_small",
        "nope",
    ]
    argv += ["--output", str(out), "--trials", "2"]
    first = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert first.returncode == 1
    assert "torchvision has no classification model 'nope'" in first.stderr
    assert "[1/3] squeezenet1_1: train ..." in first.stdout
    assert "mobilenet_v3_small" in (out / "compare.html").read_text()
    again = subprocess.run(argv[:-5] + argv[-4:], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "..." not in again.stdout
    assert [line.split()[0] for line in again.stdout.splitlines()[1:3]] == [
        line.split()[0] for line in first.stdout.splitlines()[-3:-1]
    ]
