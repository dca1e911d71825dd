"""docs/by-hand.md works as written: its commands take photos to an answer of the server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.preflight import free_port
from model_code.data.sample_data import draw
from model_code.networks.torchvision_compat import torchvision

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = "squeezenet1_1"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_page_end_in_an_answer(tmp_path: Path) -> None:
    import torch

    draw(tmp_path / "photos", photos=30, classes=3)
    shutil.copy(next((tmp_path / "photos").glob("*/*.jpg")), tmp_path / "photo.jpg")
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "weights.pth")
    page = (ROOT / "docs/by-hand.md").read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
        "ARCHITECTURE": ARCHITECTURE,
        "WEIGHTS": "weights.pth",
    }
    done = subprocess.run(
        ["bash", "-c", "set -e\nset -m\n" + script.replace("8080", str(free_port()))],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    answers = [line for line in done.stdout.splitlines() if line.startswith('{"predictions"')]
    assert json.loads(answers[-1])["predictions"][0]["class"] in {"checkers", "cross", "disc"}
    assert (tmp_path / "evaluation" / "report.html").is_file()
