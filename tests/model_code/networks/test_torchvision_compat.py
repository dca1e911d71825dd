"""The import of torchvision, in processes of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PREFIX = "import sys; from model_code.networks.torchvision_compat import torchvision; "


@pytest.mark.parametrize(
    "check",
    [
        "assert 'torch._dynamo' not in sys.modules",
        "import torch; assert torch.compile(torch.nn.ReLU(), backend='eager')(torch.tensor([-1.0])).item() == 0",
        "import torch; assert torchvision.models.mobilenet_v2().eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)",
    ],
    ids=["the compiler stays away", "the compiler works when it is wanted", "networks work"],
)
def test_torchvision_comes_without_the_compiler(check: str) -> None:
    subprocess.run([sys.executable, "-c", _PREFIX + check], check=True, timeout=300)
