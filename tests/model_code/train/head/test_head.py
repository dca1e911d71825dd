from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_code.data.shards import Split
from model_code.embed.embeddings import EmbeddingsError
from model_code.hyperparameters import resolve
from model_code.networks.classes import ClassRows
from model_code.networks.head import Head
from model_code.train.checkpoints import Checkpoints
from model_code.train.distributed import World
from model_code.train.features import Features, collect, join
from model_code.train.head.task import HeadRecipe, fit_head
from model_code.train.loop import Diverged, Fit, Metrics, Report, Schedule
from model_code.train.mixing import Loss, balanced_weights, draw_shares, partners
from tests.model_code import toys

TRAIN = collect([toys.embeddings(Split.TRAIN)], toys.CLASSES)
VALID = collect([toys.embeddings(Split.VALID)], toys.CLASSES)


def fit(train: Features = TRAIN, valid: Features | None = VALID, stop_after: int | None = None,
        rows: ClassRows | None = None, **values: object) -> tuple[Head, Fit]:  # fmt: skip
    recipe = HeadRecipe.of(resolve({"epochs": 8, "batch_size": 16, "weight_decay": 0.1, **values}))
    checkpoints = Checkpoints(None, "")
    return fit_head(
        recipe, train, valid, len(toys.CLASSES), World(), checkpoints, lambda _: None, stop_after, rows
    )


@pytest.mark.parametrize("values", [{}, {"hidden": 32}, {"mixup": 0, "dropout": 0, "label_smoothing": 0}])
def test_it_learns(values: dict[str, Any]) -> None:
    _, found = fit(**values)
    assert found.metrics["valid_accuracy"] > 0.9


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    weights = [fit(seed=seed, hidden=8)[1].weights for seed in (1, 1, 2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["output.weight"], weights[2]["output.weight"])


def test_decay_pulls_a_head_towards_its_prior_not_to_zero() -> None:
    rows = ClassRows(
        torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, 2.0, 3.0])
    )
    head, _ = fit(rows=rows, prior=1.0, weight_decay=100, learning_rate=1e-2, epochs=40)
    wanted, found = rows(VALID.evaluation()), head(VALID.evaluation())
    center = (wanted - wanted.mean(1, keepdim=True), found - found.mean(1, keepdim=True))
    torch.testing.assert_close(center[0], center[1], atol=0.35, rtol=0.05)


@pytest.mark.parametrize("values", [{"prior": 0.0}, {"hidden": 8}])
def test_no_prior_or_a_hidden_layer_ignores_the_rows(values: dict[str, Any]) -> None:
    rows = ClassRows(torch.ones(3, 16), torch.ones(3))
    with_rows, without = fit(rows=rows, **values)[1], fit(**values)[1]
    assert all(torch.equal(with_rows.weights[name], without.weights[name]) for name in without.weights)


@pytest.mark.parametrize("hidden", [0, 8])
def test_folding_gives_the_same_logits(hidden: int) -> None:
    head, _ = fit(hidden=hidden)
    rows = VALID.evaluation()
    torch.testing.assert_close(head.folded()(rows), head(rows), rtol=1e-4, atol=1e-4)


def test_rows_kept_wide_or_converted_when_needed_give_the_same_head(monkeypatch: pytest.MonkeyPatch) -> None:
    _, wide = fit()
    monkeypatch.setattr("model_code.train.head.task._TABLE_BYTES", 0)
    _, narrow = fit()
    for name, weight in wide.weights.items():
        torch.testing.assert_close(narrow.weights[name], weight, rtol=1e-3, atol=1e-4)


def test_the_best_epoch_is_kept_and_waiting_ends() -> None:
    head, found = fit(epochs=60, learning_rate=0.05, weight_decay=0, dropout=0, mixup=0, patience=3)
    best = max(found.history, key=lambda m: (m["valid_accuracy"], -m["valid_loss"]))
    assert found.metrics == best
    assert len(found.history) == found.epochs + 3
    accuracy = (head(VALID.evaluation()).argmax(1) == VALID.labels).double().mean()
    assert float(accuracy) == pytest.approx(found.metrics["valid_accuracy"])


def test_a_refit_stops_where_it_is_told_on_the_same_schedule() -> None:
    _, whole = fit(valid=None, epochs=8)
    _, part = fit(valid=None, epochs=8, stop_after=3)
    assert part.epochs == 3
    assert part.history == whole.history[:3]


def test_a_resumed_fit_counts_only_the_epochs_that_it_ran_itself(tmp_path: Path) -> None:
    def stop_after(metrics: Metrics) -> None:
        if metrics["epoch"] == 3:
            raise KeyboardInterrupt

    recipe = HeadRecipe.of(resolve({"epochs": 8, "batch_size": 16}))

    def again(report: Report) -> Fit:
        checkpoints = Checkpoints(tmp_path, "fit", seconds=0)
        return fit_head(recipe, TRAIN, VALID, len(toys.CLASSES), World(), checkpoints, report)[1]

    with pytest.raises(KeyboardInterrupt):
        again(stop_after)
    resumed = again(lambda _: None)
    assert (len(resumed.history), resumed.ran) == (8, 5)
    assert again(lambda _: None).ran == 0
    assert fit()[1].ran == 8


def test_divergence_is_an_error_that_names_the_fix() -> None:
    rows = TRAIN.rows.clone()
    rows[0] = float("inf")
    broken = Features(rows, TRAIN.first, TRAIN.views, TRAIN.labels, TRAIN.keys)
    with pytest.raises(Diverged, match="learning_rate"):
        fit(train=broken)


def test_constant_and_silent_dimensions_do_no_harm() -> None:
    rows = TRAIN.rows.clone()
    rows[:, 0] = 3.0
    rows[:, 1] = 0.0
    mean, deviation = Features(rows, TRAIN.first, TRAIN.views, TRAIN.labels, TRAIN.keys).spread()
    assert mean[0] == 3
    assert deviation[0] == 1
    torch.testing.assert_close(mean[2:], rows[:, 2:].float().mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(deviation[2:], rows[:, 2:].float().std(0, correction=0), rtol=1e-4, atol=1e-4)


def test_class_weighting_helps_the_rare_class() -> None:
    few = {"blue": 200, "green": 200, "red": 4}
    train = collect([toys.embeddings(Split.TRAIN, few, noise=3.0)], toys.CLASSES)
    valid = collect([toys.embeddings(Split.VALID, 60, noise=3.0)], toys.CLASSES)
    rare = valid.labels == toys.CLASSES.index("red")
    recall = []
    for strength in (0.0, 1.0):
        head, _ = fit(train=train, valid=None, class_weighting=strength)
        recall.append(float((head(valid.evaluation()).argmax(1) == valid.labels)[rare].double().mean()))
    assert recall[1] > recall[0]


def test_balanced_weights_have_mean_one_over_the_photos() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3)
    weights = balanced_weights(labels, 3, 1.0)
    assert weights is not None
    assert float(weights[labels].mean()) == pytest.approx(1.0)
    assert float(weights[1] / weights[0]) == pytest.approx(2.0)
    assert balanced_weights(labels, 3, 0.0) is None


def test_the_loss_is_that_of_torch() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    other = labels[partners(6)]
    share = draw_shares(np.random.default_rng(0), 6, 0.4)
    target = torch.zeros(6, 4).scatter_(1, labels[:, None], share[:, None])
    target.scatter_add_(1, other[:, None], 1 - share[:, None])
    expected = torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.2, reduction="none")
    torch.testing.assert_close(Loss(0.2)(logits, labels, other, share), expected)


def test_the_loss_against_a_teacher_is_its_divergence_at_a_temperature() -> None:
    logits, teacher = torch.randn(6, 4), torch.randn(6, 4)
    labels, share = torch.tensor([0, 1, 2, 3, 0, 1]), torch.ones(6)
    loss = Loss(distillation=0.25, temperature=2.0)
    soft = loss.soft(teacher)
    divergence = torch.nn.functional.kl_div((logits / 2).log_softmax(1), soft, reduction="none").sum(1)
    entropy = -(soft * soft.log()).sum(1)  # of the teacher: the same for every student
    hard = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    found = loss(logits, labels, labels, share, soft)
    torch.testing.assert_close(found, 0.75 * hard + 0.25 * 4 * (divergence + entropy))


def test_pairs_share_their_factor_and_the_odd_one_is_alone() -> None:
    assert partners(5).tolist() == [1, 0, 3, 2, 4]
    share = draw_shares(np.random.default_rng(0), 5, 0.4)
    assert share[0] == share[1]
    assert share[2] == share[3]
    assert 0.5 <= float(share.min()) <= float(share.max()) <= 1
    assert draw_shares(np.random.default_rng(0), 3, 0).tolist() == [1, 1, 1]


def test_dropout_keeps_the_mean() -> None:
    head = Head(torch.zeros(1000), torch.ones(1000), 2, dropout=0.3)
    (mask,) = head.draw_masks(np.random.default_rng(0), 200)
    assert float((mask == 0).double().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.01)
    assert Head(torch.zeros(4), torch.ones(4), 2).draw_masks(np.random.default_rng(0), 2) == ()


def test_schedule_warms_up_then_falls_to_zero() -> None:
    schedule = Schedule(epochs=10, steps=10, warmup=0.1)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001
    with pytest.raises(ValueError, match="at least one step"):
        Schedule(epochs=1, steps=0)


def test_features_follow_the_manifest_whatever_the_shards() -> None:
    one = toys.embeddings(Split.TRAIN, 4, seed=1)
    other = toys.embeddings(Split.TRAIN, 4, seed=2)
    features = [collect(batches, toys.CLASSES) for batches in ([one, other], [other, one])]
    assert features[0].keys == features[1].keys
    assert torch.equal(features[0].rows, features[1].rows)
    assert features[0].views.unique().tolist() == [2]
    row = one.keys.index(features[0].keys[0]) if features[0].keys[0] in one.keys else None
    if row is not None:
        expected = one.embeddings[(one.photo == row) & (one.view == 0)][0]
        assert np.array_equal(features[0].rows[features[0].first[0]].numpy(), expected)
    with pytest.raises(EmbeddingsError, match="red"):
        collect([one], ("blue", "green"))


def test_joined_features_hold_all_photos() -> None:
    both = join(TRAIN, VALID)
    assert len(both) == len(TRAIN) + len(VALID)
    assert torch.equal(both.evaluation(), torch.cat([TRAIN.evaluation(), VALID.evaluation()]))
