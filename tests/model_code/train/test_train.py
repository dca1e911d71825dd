import json
import re
import shutil
import sys
import tempfile
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

import model_code
from model_code.data.shards import Split
from model_code.embed.embeddings import file_name, write_embeddings
from model_code.hyperparameters import OBJECTIVE, metric_definitions
from model_code.train import __main__ as train
from model_code.train import arguments, run
from model_code.train.distributed import World
from model_code.tune import __main__ as tune
from tests.model_code import processes, toys


def run_until_killed(argv: list[str], folder: Path, steps: list[int], damage: bool = False) -> dict[str, Any]:
    """Start `train`, kill it as soon as it has saved each of `steps`, then let it end; the progress of the fit."""
    log = folder.with_suffix(".log")
    argv = [*argv, "--checkpoints", str(folder), "--checkpoint_seconds", "0"]
    for step in steps:
        process = processes.start(argv, log)
        assert processes.wait_for(lambda step=step: processes.newest_step(folder) >= step, process, log)
        processes.kill(process)
        if damage:
            newest = max(folder.rglob("step-*.ckpt"), key=lambda path: path.name)
            newest.write_bytes(newest.read_bytes()[:-100])
    processes.finish([processes.start(argv, log)], log)
    if steps:
        assert log.read_text().count("resuming after") >= len(steps)
        assert ("skipping a checkpoint" in log.read_text()) == damage
    return processes.result(folder)


def assert_identical(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["history"] == other["history"]
    assert one["kept"] == other["kept"]
    assert one["weights"].keys() == other["weights"].keys()
    for name, weight in one["weights"].items():
        assert torch.equal(weight, other["weights"][name]), name


@pytest.mark.parametrize("damage", [False, True])
def test_a_head_killed_and_restarted_ends_with_the_same_weights(tmp_path: Path, damage: bool) -> None:
    channels = toys.head_channels(tmp_path / "data", 40, noise=2.0)
    argv = toys.arguments(
        channels, architecture="squeezenet1_1", model_dir=tmp_path / "model", epochs=12, batch_size=8, hidden=16,
        patience=0,
    )  # fmt: skip
    whole = run_until_killed(argv, tmp_path / "whole", [])
    assert_identical(whole, run_until_killed(argv, tmp_path / "killed", [20, 75, 130], damage))


def test_finetuning_killed_and_restarted_ends_with_the_same_weights(tmp_path: Path) -> None:
    channels = toys.photo_channels(tmp_path / "data", train=3, valid=1, shards=2)
    toys.list_shards(channels)
    values = {
        "strategy": "finetune",
        "architecture": "squeezenet1_1",
        "epochs": 3,
        "batch_size": 6,
        "blocks": 1,
    }
    values |= {"patience": 0, "model_dir": tmp_path / "model"}
    argv = toys.arguments(channels, **values)
    whole = run_until_killed(argv, tmp_path / "whole", [])
    assert_identical(whole, run_until_killed(argv, tmp_path / "killed", [1, 4]))
    # The same from FastFile channels: shards are read in place, or from copies, and others are mounted with them.
    mount = tmp_path / "mount"
    for name in ("train", "valid"):
        shutil.copytree(channels[name], mount, dirs_exist_ok=True)
        toys.shard(mount, Split(name), 2, first=90)
    staged = toys.arguments(
        {**channels, "train": mount, "valid": mount}, **values, staging=tmp_path / "staging"
    )
    assert_identical(whole, run_until_killed(staged, tmp_path / "staged", [1, 4]))
    assert list((tmp_path / "staging").glob("*.tar")) == []


def test_shards_of_a_fastfile_channel_are_staged() -> None:
    def staging(mode: str) -> Path | None:
        channels = {"dataset": {"TrainingInputMode": "File"}, "train": {"TrainingInputMode": mode}}
        parsed = arguments.parser({"SM_INPUT_DATA_CONFIG": json.dumps(channels)}).parse_args([])
        return parsed.staging  # type: ignore[no-any-return]

    assert staging("FastFile") == Path(tempfile.gettempdir(), "shards")
    assert staging("File") is None
    assert arguments.parser({}).parse_args([]).staging is None


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    channels = toys.head_channels(tmp_path / "data")
    return toys.arguments(
        channels, architecture="squeezenet1_1", model_dir=tmp_path / "model", epochs=4, batch_size=16
    )


def test_a_trial_writes_trial_json_alone_and_prints_the_epoch_kept_last(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(argv, {}) == 0
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["trial.json"]
    trial = json.loads((tmp_path / "model" / "trial.json").read_text())
    schema = Path(model_code.__file__).parent / "schemas" / "trial.schema.json"
    jsonschema.validate(trial, json.loads(schema.read_text()))
    assert len(trial["history"]) == 4
    assert trial["hyperparameters"]["epochs"] == 4
    assert trial["dataset"]["name"] == "toy"
    out = capsys.readouterr().out
    definitions = {definition["Name"]: definition["Regex"] for definition in metric_definitions()}
    values = re.findall(definitions[OBJECTIVE["MetricName"]], out)
    assert float(values[-1]) == pytest.approx(trial["metrics"]["valid_accuracy"], rel=1e-5)
    assert float(values[-1]) == max(map(float, values))
    assert "progress done=4 total=4 unit=epochs" in out
    assert re.search(definitions["photos_per_second"], out)


def test_sagemaker_environment_fills_the_defaults(tmp_path: Path) -> None:
    channels = toys.head_channels(tmp_path / "data")
    environment = {f"SM_CHANNEL_{name.upper()}": str(path) for name, path in channels.items()} | {
        "SM_CHANNEL_DATASET": str(channels["dataset"].parent),
        "SM_MODEL_DIR": str(tmp_path / "ml" / "model"),
        "SM_HPS": json.dumps({"epochs": 2, "architecture": "squeezenet1_1", "seed": "3"}),
        "OMP_NUM_THREADS": "1",
    }
    (tmp_path / "ml" / "checkpoints").mkdir(parents=True)
    assert train.main(["--epochs", "1"], environment) == 0
    trial = json.loads((tmp_path / "ml" / "model" / "trial.json").read_text())
    assert trial["hyperparameters"]["seed"] == 3
    assert len(trial["history"]) == 1
    assert list((tmp_path / "ml" / "checkpoints").rglob("step-*.ckpt"))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--learning_rate", "fast"], "not of type float"),
        (["--architecture", "resnet18"], "architecture=resnet18"),
        (["--train", "nowhere"], "run model_code.embed first"),
        (["--dataset", "nowhere"], "give the data set's manifest"),
        (["--ema", "0.9"], "means nothing to strategy=head"),
        (["--weights", "typo.pth"], "no weights at typo.pth"),
        (["--calibration", "typo"], "no calibration at typo"),
        (["--valid_photos", "typo"], "no valid_photos at typo"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_fix(
    argv: list[str], extra: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*argv, *extra], {}) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


class Exported:
    """Stands in for the export module and keeps what it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = types.ModuleType("model_code.export.assemble")
        module.export_bundle = lambda **arguments: self.calls.append(arguments)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "model_code.export.assemble", module)
        self.calls: list[dict[str, Any]] = []


def test_a_final_run_refits_on_both_splits_and_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = Exported(monkeypatch)
    channels = toys.head_channels(tmp_path / "data", dim=512)
    argv = toys.arguments(
        channels,
        architecture="squeezenet1_1",
        model_dir=tmp_path / "model",
        epochs=4,
        batch_size=16,
        mode="final",
    )
    assert train.main(argv, {}) == 0
    (call,) = exported.calls
    card = call["card"]
    assert card["architecture"] == "squeezenet1_1"
    assert card["classes"] == list(toys.CLASSES)
    assert card["transform"] == toys.EMBEDDER.transform
    assert card["embedder_id"] == toys.EMBEDDER.id
    assert card["weights_sha256"] is None
    assert card["temperature"] > 0
    assert 0 <= card["abstain_threshold"] <= 1
    assert len(card["metrics"]["history"]) == 4
    json.dumps(card["metrics"])
    photos = torch.zeros(2, 3, 64, 64)
    assert call["model"](photos).shape == (2, 3)
    assert not torch.equal(call["model"].head.weight, call["reference_model"].head.weight)
    assert call["calibration_shards"] == []
    kept = int(card["metrics"]["epoch"])
    out = capsys.readouterr().out
    assert f"refitting on 90 + 90 photos for {kept} epochs" in out
    last = [line for line in out.splitlines() if line.startswith("valid_accuracy=")][-1]
    assert f"epoch={kept}" in last


def test_a_final_run_refuses_other_weights_than_the_embeddings_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Exported(monkeypatch)
    channels = toys.head_channels(tmp_path / "data", dim=512)
    (tmp_path / "weights.pth").write_bytes(b"others")
    argv = toys.arguments(
        channels, architecture="squeezenet1_1", model_dir=tmp_path / "model", epochs=1, mode="final",
        weights=tmp_path / "weights.pth",
    )  # fmt: skip
    assert train.main(argv, {}) == 1
    assert "give the same weights" in capsys.readouterr().err


def test_a_finetuned_final_run_exports_the_whole_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The head alone is right on these photos: leave it no chance to be kept.
    monkeypatch.setattr("model_code.train.finetune.strategy._SHARES", (1.0,))
    exported = Exported(monkeypatch)
    channels = toys.photo_channels(tmp_path / "data", train=2, valid=1, shards=1)
    argv = toys.arguments(
        channels, strategy="finetune", architecture="squeezenet1_1", model_dir=tmp_path / "model", epochs=1,
        batch_size=6, blocks=1, mode="final", calibration=channels["train"], valid_photos=channels["valid"],
    )  # fmt: skip
    assert train.main(argv, {}) == 0
    (call,) = exported.calls
    assert call["model"](torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    assert call["card"]["embedder_id"] is None
    assert len(call["calibration_shards"]) == len(call["valid_shards"]) == 1
    tuned, reference = call["model"].state_dict(), call["reference_model"].state_dict()
    assert tuned.keys() == reference.keys()
    assert any(
        not torch.equal(tuned[name], reference[name]) for name in tuned if name.startswith("backbone.")
    )


def test_a_finetuning_with_a_mistyped_weights_file_does_not_start_untrained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channels = toys.photo_channels(tmp_path / "data", train=2, valid=1, shards=1)
    argv = toys.arguments(channels, strategy="finetune", weights="typo.pth", model_dir=tmp_path / "model")
    assert train.main(argv, {}) == 1
    assert (
        "no weights at typo.pth; give a path that exists, or leave --weights out" in capsys.readouterr().err
    )
    assert not (tmp_path / "model").exists()


def test_validation_photos_must_be_those_of_the_validation_split(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*argv, "--valid", str(tmp_path / "data" / "train")], {}) == 1
    assert "holds photos of the train split; give --valid" in capsys.readouterr().err


def test_both_splits_must_come_from_one_embedder(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = toys.embeddings(Split.VALID, embedder=replace(toys.EMBEDDER, views=3))
    write_embeddings(tmp_path / "data" / "valid" / file_name(other.shard), other)
    assert train.main(argv, {}) == 1
    error = capsys.readouterr().err
    assert toys.EMBEDDER.id in error
    assert other.embedder.id in error
    assert "embed both with the same weights" in error


def test_a_fit_that_diverged_after_its_best_epoch_is_written_as_json(argv: list[str], tmp_path: Path) -> None:
    job = arguments.job_from(arguments.parser({}).parse_args(argv), {}, World())
    judged = run.judge(job)
    lost = {**judged.fit.history[-1], "train_loss": float("nan"), "valid_loss": float("inf")}
    judged = replace(judged, fit=replace(judged.fit, history=[*judged.fit.history, lost]))
    run._write_trial(job, judged)
    text = (tmp_path / "model" / "trial.json").read_text()
    trial = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    schema = Path(model_code.__file__).parent / "schemas" / "trial.schema.json"
    jsonschema.validate(trial, json.loads(schema.read_text()))
    assert trial["history"][-1]["train_loss"] is trial["history"][-1]["valid_loss"] is None


def test_a_finished_fit_that_is_run_again_has_no_rate(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*argv, "--checkpoints", str(tmp_path / "checkpoints")]
    for expected in (1, 0):
        assert train.main(argv, {}) == 0
        assert capsys.readouterr().out.count("photos_per_second=") == expected


def test_a_checkpoint_of_other_data_is_not_resumed(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*argv, "--checkpoints", str(tmp_path / "checkpoints")]
    assert train.main(argv, {}) == 0
    capsys.readouterr()
    assert train.main(argv, {}) == 0
    assert "resuming after epoch 4" in capsys.readouterr().out
    more = toys.embeddings(Split.TRAIN, 2, seed=9)
    write_embeddings(tmp_path / "data" / "train" / file_name(more.shard), more)
    from model_code.train.features import read_features

    read_features.cache_clear()
    assert train.main(argv, {}) == 0
    assert "resuming" not in capsys.readouterr().out


@pytest.mark.parametrize("main", [train.main, tune.main])
def test_help_is_useful(main: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"], {})
    shown = capsys.readouterr().out
    for name in ("usage: python -m model_code.", "--learning_rate", "--checkpoints", "--model_dir"):
        assert name in shown
