from pathlib import Path

import numpy as np
import pytest
import torch

from model_code.train.distributed import DistributedError, Membership, World, join, membership
from tests.model_code import processes, toys

HOSTS = {"SM_HOSTS": '["algo-1", "algo-2", "algo-3"]'}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Membership()),
        ({"SM_HOSTS": '["algo-1"]', "SM_CURRENT_HOST": "algo-1"}, Membership()),
        ({**HOSTS, "SM_CURRENT_HOST": "algo-2"}, Membership(1, 3, 0, "algo-1", 7777)),
        (
            {**HOSTS, "SM_CURRENT_HOST": "algo-1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"},
            Membership(0, 3, 0, "10.0.0.1", 1234),
        ),
        (
            {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "ec2", "MASTER_PORT": "29500",
             "LOCAL_WORLD_SIZE": "2", **HOSTS, "SM_CURRENT_HOST": "algo-2"},
            Membership(3, 4, 1, "ec2", 29500, 2),
        ),
    ],
)  # fmt: skip
def test_membership_comes_from_the_environment(environment: dict[str, str], expected: Membership) -> None:
    assert membership(environment) == expected


@pytest.mark.parametrize(
    "environment",
    [
        {**HOSTS, "SM_CURRENT_HOST": "algo-4"},
        {"SM_HOSTS": '["a", "a"]', "SM_CURRENT_HOST": "a"},
        {"RANK": "2", "WORLD_SIZE": "2"},
    ],
)
def test_a_contradiction_is_an_error(environment: dict[str, str]) -> None:
    with pytest.raises(DistributedError):
        membership(environment)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 64, 101])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_are_disjoint_whole_and_keep_pairs(count: int, size: int) -> None:
    shares = [list(range(count))[World(rank, size).share(count)] for rank in range(size)]
    assert [photo for share in shares for photo in share] == list(range(count))
    assert all(share[0] % 2 == 0 for share in shares if share)
    assert max(map(len, shares)) - min(map(len, shares)) <= 2


def test_alone_nothing_is_asked_of_others() -> None:
    with join({}) as world:
        assert world.is_main
        assert world.gather("x") == ["x"]
        assert world.from_main("x") == "x"
        layer = torch.nn.Linear(2, 2)
        assert world.wrap(layer) is layer


def train_together(
    folder: Path, argv: list[str], ranks: int, environments: list[dict[str, str]] | None = None
) -> dict:
    """Train in `ranks` processes; the progress that rank 0 saved."""
    folder.mkdir()
    log = folder / "log"
    environments = environments or (processes.hosts(ranks) if ranks > 1 else [{}])
    group = [
        processes.start(
            [
                *argv,
                *toys.arguments({"model_dir": folder / f"model-{rank}", "checkpoints": folder / f"{rank}"}),
            ],
            log,
            environment,
        )
        for rank, environment in enumerate(environments)
    ]
    processes.finish(group, log)
    for rank in range(1, ranks):
        assert not (folder / f"{rank}").exists()
        assert not (folder / f"model-{rank}").exists()
    assert log.read_text().count("photos_per_second=") == 1
    return processes.result(folder / "0")


# A GPU adds in an order that depends on a rank's share of the batch, and convolves with 10 bits of mantissa (TF32).
GPU = torch.cuda.is_available()
FINETUNED = {"tolerance": 1e-2, "loss": 1e-3} if GPU else {"tolerance": 1e-3, "loss": 1e-4}


def assert_same(one: dict, several: dict, tolerance: float, loss: float = 1e-4) -> None:
    assert one["weights"].keys() == several["weights"].keys()
    for name, weight in one["weights"].items():
        torch.testing.assert_close(several["weights"][name], weight, rtol=tolerance, atol=tolerance)
    for alone, together in zip(one["history"], several["history"], strict=True):
        assert alone["train_loss"] == pytest.approx(together["train_loss"], rel=loss)
        assert alone["valid_loss"] == pytest.approx(together["valid_loss"], rel=10 * loss)
        assert alone["valid_accuracy"] == together["valid_accuracy"]


def test_two_processes_train_the_head_that_one_would(tmp_path: Path) -> None:
    channels = toys.head_channels(tmp_path / "data", 31, noise=2.0)
    argv = toys.arguments(
        channels, architecture="squeezenet1_1", epochs=4, batch_size=20, hidden=8, patience=0
    )
    one, two = (train_together(tmp_path / str(ranks), argv, ranks) for ranks in (1, 2))
    assert_same(one, two, 1e-4)
    assert np.isfinite(one["history"][-1]["train_loss"])


def test_two_processes_finetune_as_one_would(tmp_path: Path) -> None:
    channels = toys.photo_channels(tmp_path / "data", train=3, valid=2, shards=2)
    argv = toys.arguments(
        channels, strategy="finetune", architecture="squeezenet1_1", epochs=2, batch_size=9, blocks=1,
        learning_rate=1e-3, patience=0, precision="float32",
    )  # fmt: skip
    one, two = (train_together(tmp_path / str(ranks), argv, ranks) for ranks in (1, 2))
    assert any(name.startswith("backbone.") for name in one["weights"])
    assert_same(one, two, **FINETUNED)
