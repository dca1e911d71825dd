"""Tests that need a GPU: mixed precision, its own checkpoints, processes that share it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from model_code.data.transform import Transform
from model_code.embed.forward import GpuForward, TorchForward, best_forward
from model_code.networks.backbone import build_backbone
from model_code.train.checkpoints import read, write
from tests.model_code import processes, toys
from tests.model_code.photo_files import photo
from tests.model_code.train.finetune.test_finetune import changed, snapshot, task
from tests.model_code.train.test_distributed import FINETUNED, assert_same, train_together

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

SMALL = Transform(64, 64)


def test_embeddings_in_float16_are_those_of_a_cpu_from_any_thread() -> None:
    backbone = build_backbone("mobilenet_v3_small")
    pixels = np.stack([SMALL.pixels(photo(n)) for n in range(12)])
    expected = TorchForward(backbone, SMALL)(pixels)
    forward = best_forward(build_backbone("mobilenet_v3_small"), SMALL)
    assert isinstance(forward, GpuForward)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(forward, [pixels] * 8))
    for answer in answers:
        assert answer.dtype == np.float32
        assert np.linalg.norm(answer - expected) < 1e-2 * np.linalg.norm(expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_loss_falls_in_any_precision(precision: str) -> None:
    tuned = task(
        device="cuda", precision=precision, blocks=2, learning_rate=1e-3, label_smoothing=0, accumulate=2
    )
    before = tuned.validate()
    losses = [tuned.train_step(0, step).mean_loss for step in range(25)]
    after = tuned.validate()
    assert before is not None
    assert after is not None
    assert np.isfinite(losses).all()
    assert after.mean_loss < before.mean_loss


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_step_is_that_of_a_cpu_but_for_rounding(precision: str) -> None:
    losses = [
        task(device=device, precision=chosen, blocks=1, mixup=0.4).train_step(0, 0).mean_loss
        for device, chosen in (("cpu", "float32"), ("cuda", precision))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_state_brings_back_every_bit(tmp_path: Path, precision: str) -> None:
    values = {"device": "cuda", "precision": precision, "blocks": 1, "mixup": 0.4, "ema": 0.9}
    one = task(**values)  # type: ignore[arg-type]
    for step in range(3):
        one.train_step(0, step)
    write(tmp_path / "state", one.state())
    other = task(**values)  # type: ignore[arg-type]
    other.restore(read(tmp_path / "state"))
    for tuned in (one, other):
        tuned.train_step(0, 3)
    assert not changed(one.weights(), other.weights())
    assert not changed(snapshot(one), snapshot(other))


def test_ranks_that_share_a_gpu_finetune_as_one_would(tmp_path: Path) -> None:
    ranks = torch.cuda.device_count() + 1
    channels = toys.photo_channels(tmp_path / "data", train=3, valid=2, shards=2)
    argv = toys.arguments(
        channels, strategy="finetune", architecture="squeezenet1_1", epochs=2, batch_size=9, blocks=1,
        learning_rate=1e-3, patience=0, precision="float32",
    )  # fmt: skip
    port = processes.hosts(1)[0]["MASTER_PORT"]
    group = [
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
         "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for rank in range(ranks)
    ]  # fmt: skip
    one = train_together(tmp_path / "one", argv, 1)
    assert_same(one, train_together(tmp_path / "group", argv, ranks, group), **FINETUNED)
