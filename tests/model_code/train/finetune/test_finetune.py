import os
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_code.data.shards import ShardError, Split
from model_code.data.transform import Transform
from model_code.embed.__main__ import main as embed
from model_code.hyperparameters import resolve
from model_code.networks.backbone import Classifier, build_backbone
from model_code.networks.head import Head
from model_code.train import arguments
from model_code.train.checkpoints import read, write
from model_code.train.distributed import World
from model_code.train.finetune import start
from model_code.train.finetune.average import Average
from model_code.train.finetune.index import index_shards
from model_code.train.finetune.loader import (
    Photos,
    Plan,
    TrainingStream,
    decoders_for_gpu,
    stream_once,
)
from model_code.train.finetune.start import Start
from model_code.train.finetune.strategy import choose, data_identity, prepare
from model_code.train.finetune.task import (
    FinetuneRecipe,
    FinetuneTask,
    Network,
    PhotoSource,
    _pieces,
    pick_precision,
    unfreeze,
)
from model_code.train.job import Job
from model_code.train.mixing import cut, mix, partners
from tests.model_code import toys

TRANSFORM = Transform(32, 32)


def task(
    photos: int = 8, architecture: str = "mobilenet_v3_small", device: str = "cpu", **values: object
) -> FinetuneTask:
    """A task on random photos of 32 pixels, without files."""
    recipe = FinetuneRecipe.of(resolve({"strategy": "finetune", "batch_size": 8, "dropout": 0, **values}))
    backbone = build_backbone(architecture)
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (photos, 32, 32, 3), dtype=torch.uint8, generator=draw)
    labels = torch.arange(photos) % 3
    source = PhotoSource(
        steps=1,
        batch=lambda epoch, step: (pixels, labels),
        batch_photos=lambda step: photos,
        valid=lambda: iter([(pixels, labels)]),
    )
    head = Head(torch.zeros(backbone.dim), torch.full((backbone.dim,), 0.01), 3, dropout=recipe.dropout)
    world = World(device=torch.device(device))
    return FinetuneTask(recipe, Network(backbone, head), TRANSFORM, source, None, world)


def test_a_network_learns_what_its_teacher_answers() -> None:
    taught = task(blocks=1, ema=0, mixup=0, distillation=1.0, learning_rate=1e-2, accumulate=2)
    wanted = torch.arange(8).flip(0) % 3
    assert (wanted != torch.arange(8) % 3).any()
    answers = 20 * torch.nn.functional.one_hot(wanted, 3).float()
    taught._source = replace(taught._source, taught=lambda epoch, step: answers)
    for step in range(60):
        taught.train_step(0, step)
    ((logits, _),) = taught.judge(taught._source.valid())  # type: ignore[misc]
    assert torch.equal(logits.argmax(1), wanted)


def test_photos_are_embedded_for_the_teacher_under_the_keys_that_finetuning_reads(tmp_path: Path) -> None:
    channels = toys.photo_channels(tmp_path / "data", train=3, valid=1, shards=2)
    for split in ("train", "valid"):
        folder = channels[f"teacher_{split}"] = tmp_path / "teacher" / split
        argv = ["--shards", str(channels[split]), "--output", str(folder), "--architecture", "squeezenet1_1"]
        assert embed([*argv, "--runtime", "torch"]) == 0
    argv = toys.arguments(
        channels, strategy="finetune", architecture="squeezenet1_1", model_dir=tmp_path / "model", epochs=1,
        batch_size=6, blocks=1,
    )  # fmt: skip
    parsed = arguments.parser({}).parse_args(argv)
    taught = arguments.job_from(parsed, {}, World())
    alone = replace(taught, folders=replace(taught.folders, teacher_train=None, teacher_valid=None))
    losses = [prepare(job)[0].fit.metrics["train_loss"] for job in (taught, alone)]
    assert losses[0] != losses[1]
    assert data_identity(taught) != data_identity(alone)


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def snapshot(task: FinetuneTask) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in task.network.state_dict().items()}


def test_only_the_last_blocks_and_never_batch_norm_statistics_change() -> None:
    tuned = task(blocks=1, ema=0)
    before = snapshot(tuned)
    for step in range(2):
        tuned.train_step(0, step)
    moved = changed(before, snapshot(tuned))
    last = tuned.network.backbone.blocks()[-1]
    allowed = {id(parameter) for parameter in last.parameters}
    names = {
        name for name, p in tuned.network.named_parameters() if id(p) in allowed or name.startswith("head.")
    }
    assert moved
    assert moved <= names
    assert any(name.startswith("backbone.") for name in moved)
    assert not any("running" in name for name in moved)


def test_zero_blocks_means_all() -> None:
    backbone = build_backbone("squeezenet1_1")
    unfreeze(backbone, 0)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    unfreeze(backbone, 1)
    trained = sum(parameter.requires_grad for parameter in backbone.parameters())
    assert 0 < trained < len(list(backbone.parameters()))


@pytest.mark.parametrize(
    "values",
    [{"mixup": 0}, {"mixup": 0.4}, {"mixup": 0, "cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0, "ema": 0.9}],
)
def test_loss_falls(values: dict[str, Any]) -> None:
    tuned = task(blocks=2, learning_rate=1e-3, label_smoothing=0, **values)
    before = tuned.validate()
    for step in range(25):
        tuned.train_step(0, step)
    after = tuned.validate()
    assert before is not None
    assert after is not None
    assert after.mean_loss < before.mean_loss


def test_accumulating_gives_the_weights_of_one_big_batch() -> None:
    weights = []
    for accumulate in (1, 3):
        tuned = task(accumulate=accumulate, blocks=1, mixup=0.4)
        tuned.train_step(0, 0)
        weights.append(tuned.weights())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-5)


def test_the_backbone_moves_slower_than_the_head_and_each_block_slower_than_the_next() -> None:
    tuned = task(learning_rate=1e-3, backbone_rate=0.1, blocks=2, layer_decay=0.5)
    rates = sorted({group["peak"] for group in tuned.optimizer.param_groups})
    assert rates == pytest.approx([5e-5, 1e-4, 1e-3])
    by_parameter = {id(p): group["peak"] for group in tuned.optimizer.param_groups for p in group["params"]}
    before_last, last = tuned.network.backbone.blocks()[-2:]
    assert {by_parameter[id(p)] for p in last.parameters} == {1e-4}
    assert {by_parameter[id(p)] for p in before_last.parameters} == {5e-5}
    decays = {group["weight_decay"] for group in tuned.optimizer.param_groups if group["params"][0].ndim <= 1}
    assert decays == {0.0}


def test_moving_part_of_the_way_interpolates_what_was_trained() -> None:
    tuned = task(blocks=1, ema=0)
    start = tuned.weights()
    for step in range(2):
        tuned.train_step(0, step)
    end = tuned.weights()
    for share in (0.0, 0.25, 1.0):
        tuned.move(end, share)
        for name, weight in tuned.weights().items():
            torch.testing.assert_close(weight, torch.lerp(start[name], end[name], share))


def answers(right: Sequence[int], photos: int = 40, sure: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are right on the photos with these numbers, and the labels."""
    labels = torch.zeros(photos, dtype=torch.int64)
    logits = torch.tensor([0.0, sure]).repeat(photos, 1)
    logits[list(right)] = torch.tensor([sure, 0.0])
    return logits, labels


def test_the_head_stays_unless_fine_tuning_is_better_by_a_standard_error() -> None:
    head = (0.0, *answers(range(20)))
    same, lucky, worse, better = (range(20), [*range(1, 22)], range(15), range(30))
    for right in (same, lucky, worse):
        assert choose([head, (1.0, *answers(right, sure=9.0))])[0] == 0
    assert choose([head, (0.5, *answers(better)), (1.0, *answers(range(25)))])[0] == 0.5


def test_fine_tuning_that_ruins_the_network_gives_the_head(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channels = toys.photo_channels(tmp_path / "data", valid=6)
    values = {
        "strategy": "finetune",
        "architecture": "squeezenet1_1",
        "epochs": 1,
        "batch_size": 8,
        "blocks": 1,
    }
    job = toys_job(channels, tmp_path, {**values, "learning_rate": 10.0, "backbone_rate": 1.0, "ema": 0.0})
    judged, refit = prepare(job)
    assert "keeping the head" in capsys.readouterr().out
    start = Start.of(job, *(index_shards((channels[name],), toys.CLASSES) for name in ("train", "valid")))
    backbone = start.backbone.state_dict()
    refitted = refit()
    for model in (refitted.model, refitted.reference):
        assert isinstance(model, Classifier)
        assert all(torch.equal(model.backbone.state_dict()[name], backbone[name]) for name in backbone)
    with torch.no_grad():
        accuracy = float((judged.logits.argmax(1) == judged.labels).double().mean())
    assert accuracy == pytest.approx(judged.fit.metrics["valid_accuracy"])


def toys_job(channels: dict[str, Path], folder: Path, values: dict[str, object]) -> Job:
    argv = toys.arguments({**channels, "model_dir": folder / "model"}, **values)
    return arguments.job_from(arguments.parser({}).parse_args(argv), {}, World())


def test_state_brings_back_every_bit(tmp_path: Path) -> None:
    one = task(blocks=1, mixup=0.4, ema=0.9)
    for step in range(3):
        one.train_step(0, step)
    write(tmp_path / "state", one.state())
    other = task(blocks=1, mixup=0.4, ema=0.9)
    other.restore(read(tmp_path / "state"))
    for tuned in (one, other):
        tuned.train_step(0, 3)
    assert not changed(one.weights(), other.weights())
    assert not changed(snapshot(one), snapshot(other))


def test_the_average_follows_and_is_only_lent() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    average = Average([parameter], 0.99)
    for _ in range(200):
        with torch.no_grad():
            parameter.fill_(1.0)
        average.update()
    with average.applied():
        assert 0.9 < float(parameter.detach()[0]) < 1.0
    assert float(parameter.detach()[0]) == 1.0
    without = Average([parameter], 0.0)
    without.update()
    with without.applied():
        assert float(parameter.detach()[0]) == 1.0


def test_precision_on_a_cpu_is_float32_unless_bfloat16_is_native() -> None:
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    cpu = torch.device("cpu")
    assert pick_precision("auto", cpu) is (torch.bfloat16 if native else torch.float32)
    assert pick_precision("bfloat16", cpu) is torch.bfloat16


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float16(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: torch.dtype
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert pick_precision("auto", torch.device("cuda")) is expected


def test_under_autocast_the_backbone_computes_in_bfloat16_and_the_head_in_float32() -> None:
    tuned = task(precision="bfloat16", blocks=1)
    seen: dict[str, tuple[torch.dtype, bool]] = {}

    def note(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            channels_last = output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last)
            seen[name] = (output.dtype, channels_last)

        return hook

    first = next(m for m in tuned.network.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    first.register_forward_hook(note("first convolution"))
    tuned.network.head.register_forward_hook(note("head"))
    assert np.isfinite(tuned.train_step(0, 0).mean_loss)
    assert seen["first convolution"] == (torch.bfloat16, True)
    assert seen["head"][0] is torch.float32


def test_pieces_are_whole_and_keep_pairs() -> None:
    for count in (1, 2, 5, 8, 9):
        for wanted in (1, 2, 3, 100):
            pieces = _pieces(count, wanted)
            assert [n for piece in pieces for n in range(count)[piece]] == list(range(count))
            assert all(piece.start % 2 == 0 for piece in pieces)


def test_cutmix_swaps_a_patch_and_counts_its_area() -> None:
    box, share = cut(np.random.default_rng(1), 32, 1.0)
    photos = torch.arange(4.0)[:, None, None, None].expand(4, 3, 32, 32)
    mixed = mix(photos, partners(4), torch.full((4,), share), box)
    assert float((mixed[0] == 0).double().mean()) == pytest.approx(share)
    assert float((mixed[0] == 1).double().mean()) == pytest.approx(1 - share)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(3):
        toys.shard(folder, Split.TRAIN, 5, first=5 * number)
    return folder


def test_the_index_reads_what_was_written(folder: Path) -> None:
    index = index_shards((folder,), toys.CLASSES)
    assert len(index) == 45
    assert Counter(index.labels.tolist()) == {0: 15, 1: 15, 2: 15}
    written = {toys.photo(label, number) for label in toys.CLASSES for number in range(15)}
    assert {index.read(photo) for photo in range(45)} == written
    with pytest.raises(ShardError, match="red"):
        index_shards((folder,), ("blue", "green"))
    with pytest.raises(ShardError, match=r"no \.tar"):
        index_shards((folder / "nowhere",), toys.CLASSES)


def test_an_epoch_takes_every_photo_once_and_each_epoch_differs(folder: Path) -> None:
    index = index_shards((folder,), toys.CLASSES)
    plan = Plan(index, 8, 0, World())
    epochs = [[int(p) for step in range(plan.steps) for p in plan.batch(epoch, step)] for epoch in (0, 1)]
    assert all(sorted(epoch) == list(range(45)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    sizes = [len(plan.batch(0, step)) for step in range(plan.steps)]
    assert sizes == [plan.batch_photos(step) for step in range(plan.steps)]
    assert max(sizes) - min(sizes) <= 1


def test_a_rank_without_photos_has_no_features_of_the_right_width(tmp_path: Path) -> None:
    toys.shard(tmp_path, Split.VALID, 1)
    index = index_shards((tmp_path,), toys.CLASSES)
    idle = Replicated(0, 4)  # 3 photos are two pairs for four ranks
    features = start._features(idle, index, start.Origin("squeezenet1_1", None, TRANSFORM))
    assert features.rows.shape == (0, 512)
    assert len(features) == 0


def test_few_shards_are_open_at_a_time(folder: Path, tmp_path: Path) -> None:
    shard = next(folder.glob("*.tar"))
    for number in range(100):
        shutil.copy(shard, tmp_path / f"{number}.tar")
    index = index_shards((tmp_path,), toys.CLASSES)
    before = len(os.listdir("/dev/fd"))
    first = index.read(0)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(index.read, range(len(index)), chunksize=3))
    assert read == read[:15] * 100
    assert index.read(0) == first == read[0]
    assert len(os.listdir("/dev/fd")) - before <= 64


class Replicated(World):
    """A rank among several that all hold the same files, without a process group."""

    def gather(self, item: object) -> list[object]:
        return [item] * self.size


class Sharded(Replicated):
    """A rank among several that hold different files of the same size."""

    def gather(self, item: object) -> list[object]:
        if isinstance(item, list):
            return [[f"{rank}-{name}" for name in item] for rank in range(self.size)]
        return [item] * self.size


def test_ranks_take_disjoint_parts_of_the_batch_that_one_process_would(folder: Path) -> None:
    index = index_shards((folder,), toys.CLASSES)
    alone = Plan(index, 8, 0, World())
    ranks = [Plan(index, 8, 0, Replicated(rank, 2)) for rank in range(2)]
    for step in range(alone.steps):
        parts = [plan.batch(3, step).tolist() for plan in ranks]
        assert parts[0] + parts[1] == alone.batch(3, step).tolist()
        assert not set(parts[0]) & set(parts[1])
    assert [*ranks[0].share(), *ranks[1].share()] == list(range(45))


def test_ranks_with_their_own_shards_use_all_of_them(folder: Path) -> None:
    index = index_shards((folder,), toys.CLASSES)
    plan = Plan(index, 18, 0, Sharded(1, 2))
    assert not plan.replicated
    assert plan.photos == 90
    assert sorted(p for step in range(plan.steps) for p in plan.batch(0, step)) == list(range(45))
    assert sum(plan.batch_photos(step) for step in range(plan.steps)) == 90
    assert len(plan.share()) == 45


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_can_begin_anywhere(folder: Path, workers: int) -> None:
    index = index_shards((folder,), toys.CLASSES)
    plan = Plan(index, 8, 0, World())
    photos = Photos(index, TRANSFORM, "trivial", seed=3)
    whole = TrainingStream(photos, plan, 2, 0)
    expected = {(e, s): whole.batch(e, s) for e in range(2) for s in range(plan.steps)}
    resumed = TrainingStream(photos, plan, 2, workers)
    for position in [(0, 3), (0, 4), (0, 5), (1, 0), (1, 1)]:
        pixels, labels = resumed.batch(*position)
        assert torch.equal(pixels, expected[position][0])
        assert torch.equal(labels, expected[position][1])


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (4, 3), (16, 13)])
def test_a_gpu_gets_the_decoders_that_its_trainer_leaves_cores_for(
    monkeypatch: pytest.MonkeyPatch, cores: int, expected: int
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv("SM_NUM_CPUS", str(cores))
    assert decoders_for_gpu() == expected


@pytest.mark.parametrize("augmentation", ["none", "flip", "trivial", "rand"])
def test_augmentations_keep_the_shape_and_follow_from_seed_epoch_and_photo(
    folder: Path, augmentation: str
) -> None:
    index = index_shards((folder,), toys.CLASSES)

    def batch(seed: int, epoch: int) -> torch.Tensor:
        photos = Photos(index, TRANSFORM, augmentation, seed)
        return photos.__getitems__([(epoch, photo) for photo in range(12)])[0]

    first = batch(0, 0)
    assert first.shape == (12, 32, 32, 3)
    assert first.dtype == torch.uint8
    assert torch.equal(first, batch(0, 0))
    assert torch.equal(first, batch(0, 1)) == (augmentation == "none")
    assert torch.equal(first, batch(1, 0)) == (augmentation == "none")


def test_validation_photos_come_once_as_they_are_served(folder: Path) -> None:
    index = index_shards((folder,), toys.CLASSES)
    batches = list(stream_once(Photos(index, TRANSFORM), np.arange(45), 10, 0))
    assert [len(labels) for _, labels in batches] == [10, 10, 10, 10, 5]
    served = TRANSFORM.normalize(TRANSFORM.pixels(index.read(7)))
    trained = task()._normalized(batches[0][0][7:8])[0]
    torch.testing.assert_close(trained, torch.from_numpy(served), rtol=1e-5, atol=1e-5)
