import math

import pytest
import torch

from model_code.bundle.card import finite
from model_code.train.metrics import Tally, log_metrics


def test_a_short_last_batch_weighs_what_it_holds() -> None:
    logits = torch.randn(103, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(103) % 7
    tally = Tally()
    for start in range(0, 103, 32):
        tally.add_logits(logits[start : start + 32], labels[start : start + 32])
    assert tally.mean_loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)))
    assert tally.accuracy == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert tally.photos == 103


def test_no_photos_is_not_a_number() -> None:
    tally = Tally()
    tally.add_logits(torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    assert math.isnan(tally.accuracy)
    assert math.isnan(tally.mean_loss)


def test_numbers_make_the_same_tally() -> None:
    tally = Tally()
    tally.add(torch.tensor(1.5), torch.tensor(2), 3)
    assert Tally(**tally.numbers()) == Tally(1.5, 2.0, 3)
    assert tally.over() == Tally(1.5, 2.0, 3)


def test_a_log_line_is_names_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    log_metrics(valid_accuracy=0.25, epoch=2)
    assert capsys.readouterr().out == "valid_accuracy=0.25 epoch=2\n"


def test_numbers_that_json_cannot_hold_become_null() -> None:
    metrics = {"valid_loss": float("inf"), "history": [{"epoch": 1, "train_loss": float("nan")}], "name": "x"}
    assert finite(metrics) == {
        "valid_loss": None,
        "history": [{"epoch": 1, "train_loss": None}],
        "name": "x",
    }
