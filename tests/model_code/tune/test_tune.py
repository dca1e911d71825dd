import json
import sys
import threading
from pathlib import Path

import jsonschema
import pytest
import torch

import model_code
from model_code.data.shards import Split
from model_code.data.transform import Transform
from model_code.embed.embeddings import Embedder, Embeddings, file_name, write_embeddings
from model_code.hyperparameters import WITHOUT_PRIOR, HyperparameterError, search_space
from model_code.process.files import sha256_of
from model_code.train import features, run
from model_code.train.finetune import start
from model_code.train.job import Job, Judged
from model_code.train.loop import Diverged
from model_code.tune import __main__ as tune
from model_code.tune import search
from model_code.tune.proposals import Search, Status, Trial, propose
from tests.model_code import toys

SPACE = search_space("head", {"hidden": {"choices": [0, 8]}, "batch_size": {"low": 8, "high": 64}})


def done(count: int) -> list[Trial]:
    """Trials whose objective is better the lower the learning rate."""
    trials: list[Trial] = []
    while len(trials) < count:
        (searched,) = propose(SPACE, trials, 1, Search.RANDOM, 0)
        accuracy = 1 - 10 * float(searched["learning_rate"])
        trials.append(Trial(len(trials), searched, metrics={"valid_accuracy": accuracy}))
    return trials


@pytest.mark.parametrize("search", Search)
def test_candidates_are_in_range_and_follow_from_what_is_known(search: Search) -> None:
    for known in (0, 1, 5, 9):
        trials = done(known)
        candidates = propose(SPACE, trials, 3, search, seed=1)
        assert candidates == propose(SPACE, trials, 3, search, seed=1)
        assert len({json.dumps(candidate) for candidate in candidates}) == 3
        for candidate in candidates:
            assert candidate.keys() == SPACE.keys()
            for name, row in SPACE.items():
                row.check(candidate[name])
                if name != "hidden":
                    assert row.search is not None
                    assert float(row.search[0]) <= float(candidate[name]) <= float(row.search[1])


def test_the_first_candidate_is_the_table() -> None:
    first, _ = propose(SPACE, [], 2, Search.BAYESIAN, 0)
    assert first == {name: row.default for name, row in SPACE.items()}


def test_the_second_candidate_ignores_the_pretrained_classifier() -> None:
    first, second = propose(SPACE, [], 2, Search.BAYESIAN, 0)
    assert float(first["prior"]) > 0
    assert {name: second[name] for name in WITHOUT_PRIOR} == WITHOUT_PRIOR
    assert [second] == propose(SPACE, done(1), 1, Search.RANDOM, 0)
    always = search_space("head", {"prior": {"low": 0.5, "high": 1.0}})
    assert float(propose(always, [], 2, Search.RANDOM, 0)[1]["prior"]) >= 0.5


def test_classes_that_the_weights_do_not_know_never_lose_by_their_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drawn embeddings, and a pretrained classifier that is noise: what the search picks is no worse for it."""
    draw = torch.Generator().manual_seed(3)
    junk = {"classifier.weight": 3 * torch.randn(50, 16, generator=draw), "classifier.bias": torch.zeros(50)}
    torch.save(junk, tmp_path / "junk.pth")
    embedder = Embedder("squeezenet1_1", sha256_of(tmp_path / "junk.pth"), Transform(32, 32), views=2)
    folder = tmp_path / "channels"
    for split in (Split.TRAIN, Split.VALID):
        batch = toys.embeddings(split, 12, noise=3.0, embedder=embedder)
        (folder / split).mkdir(parents=True)
        write_embeddings(folder / split / file_name(batch.shard), batch)
    channels = {
        "train": folder / "train",
        "valid": folder / "valid",
        "dataset": toys.manifest(folder / "dataset"),
    }
    best = {}
    channels |= {"weights": tmp_path / "junk.pth"}
    common = ["--architecture", "squeezenet1_1", "--epochs", "8", "--trials", "4", "--parallel", "2"]
    for name, extra in (("with", []), ("without", ["--prior", "0"])):
        argv = [*toys.arguments({**channels, "model_dir": tmp_path / name}), *common, *extra]
        assert tune.main(argv, {}) == 0, capsys.readouterr().err
        trials = json.loads((tmp_path / name / "trials.json").read_text())
        best[name] = trials["best"]["metrics"]["valid_accuracy"]
        if name == "with":
            plain = trials["trials"][1]
            assert plain["searched"]["prior"] == 0
            assert best[name] >= plain["metrics"]["valid_accuracy"]
    assert best["with"] >= best["without"] - 1e-9
    capsys.readouterr()


def test_bayesian_search_goes_where_it_was_good() -> None:
    rates = [
        c["learning_rate"] for seed in range(3) for c in propose(SPACE, done(40), 5, Search.BAYESIAN, seed)
    ]
    drawn = [
        c["learning_rate"] for seed in range(3) for c in propose(SPACE, done(40), 5, Search.RANDOM, seed)
    ]
    assert sum(map(float, rates)) < sum(map(float, drawn))


def test_without_optuna_it_draws_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert propose(SPACE, done(9), 2, Search.BAYESIAN, 0) == propose(SPACE, done(9), 2, Search.RANDOM, 0)


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    channels = toys.head_channels(tmp_path)
    return toys.arguments(
        channels, architecture="squeezenet1_1", epochs=2, batch_size=32, trials=6, parallel=2,
        model_dir=tmp_path / "model", checkpoints=tmp_path / "checkpoints",
    )  # fmt: skip


def test_a_search_writes_all_trials_and_the_best(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune.main(argv, {}) == 0
    found = json.loads((tmp_path / "model" / "trials.json").read_text())
    schema = Path(model_code.__file__).parent / "schemas" / "trials.schema.json"
    jsonschema.validate(found, json.loads(schema.read_text()))
    assert len(found["trials"]) == 6
    best = max(trial["metrics"]["valid_accuracy"] for trial in found["trials"])
    assert found["best"]["metrics"]["valid_accuracy"] == best
    assert found["fixed"]["epochs"] == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(f"valid_accuracy={best:.6g}")
    assert "progress done=6 total=6 unit=trials" in lines


def test_a_restarted_search_goes_on_as_it_would_have(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tune.main(argv, {}) == 0
    whole = json.loads((tmp_path / "model" / "trials.json").read_text())
    (journal,) = (tmp_path / "checkpoints").glob("trials-*.json")
    journal.write_text(json.dumps(json.loads(journal.read_text())[:4]))
    (tmp_path / "model" / "trials.json").unlink()
    tried: list[int] = []
    original = search.Tuning._try
    monkeypatch.setattr(
        search.Tuning, "_try", lambda self, trial: (tried.append(trial.number), original(self, trial))[1]
    )
    assert tune.main(argv, {}) == 0
    assert sorted(tried) == [4, 5]
    again = json.loads((tmp_path / "model" / "trials.json").read_text())
    for one, other in zip(whole["trials"], again["trials"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_failed_trial_is_recorded_and_all_failed_is_an_error(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = run.judge
    failing = {
        0: Diverged("the loss is not a number"),
        3: torch.OutOfMemoryError("CUDA out of memory.\nMore"),
    }

    def judge(job: Job) -> Judged:
        number = len(seen)
        seen.append(number)
        if number in failing:
            raise failing[number]
        return original(job)

    seen: list[int] = []
    monkeypatch.setattr(run, "judge", judge)
    assert tune.main([*argv, "--parallel", "1"], {}) == 0
    found = json.loads((tmp_path / "model" / "trials.json").read_text())
    assert [trial["status"] == Status.FAILED for trial in found["trials"]] == [n in failing for n in range(6)]
    assert found["trials"][3]["reason"] == "CUDA out of memory."
    failing = dict.fromkeys(range(100), Diverged("the loss is not a number"))
    assert tune.main([*argv, "--parallel", "1", "--seed", "5"], {}) == 1
    assert "all 6 trials failed" in capsys.readouterr().err


def test_a_search_reads_the_data_once_before_its_trials(
    argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[threading.Thread] = []
    real = features.read_folder  # type: ignore[attr-defined]

    def read(folder: Path) -> list[Embeddings]:
        readers.append(threading.current_thread())
        return real(folder)

    monkeypatch.setattr(features, "read_folder", read)
    assert tune.main(argv, {}) == 0
    assert readers == [threading.main_thread()] * 2


def test_trials_on_other_data_are_not_taken_over(argv: list[str], tmp_path: Path) -> None:
    assert tune.main(argv, {}) == 0
    first = (tmp_path / "model" / "trials.json").read_text()
    other = toys.embeddings(Split.VALID, 30, noise=4.0, seed=5)
    (old,) = (tmp_path / "valid").iterdir()
    old.unlink()
    write_embeddings(tmp_path / "valid" / file_name(other.shard), other)
    features.read_features.cache_clear()
    assert tune.main(argv, {}) == 0
    assert len(list((tmp_path / "checkpoints").glob("trials-*.json"))) == 2
    assert (tmp_path / "model" / "trials.json").read_text() != first


def test_a_scale_that_only_sagemaker_knows_is_refused(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ranges = '{"dropout": {"low": 0, "high": 0.5, "scale": "ReverseLogarithmic"}}'
    assert tune.main([*argv, "--ranges", ranges], {}) == 1
    assert "dropout: ReverseLogarithmic exists only in SageMaker's tuning jobs" in capsys.readouterr().err


def test_wrong_ranges_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main([*argv, "--ranges", '{"dropout": {"low": 0.9, "high": 0.1}}'], {}) == 1
    assert "below" in capsys.readouterr().err
    arguments = tune.parser({}).parse_args([*argv, "--trials", "0"])
    with pytest.raises(HyperparameterError, match="at least 1"):
        tune.tuning_from(arguments, {})


def test_what_is_given_is_not_searched(argv: list[str]) -> None:
    arguments = tune.parser({}).parse_args([*argv, "--dropout", "0.2"])
    assert "dropout" not in tune.tuning_from(arguments, {}).space


def test_trials_of_a_packed_finetune_search_share_the_frozen_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    real = start.best_forward  # type: ignore[attr-defined]
    monkeypatch.setattr(start, "best_forward", lambda *a: computed.append(a) or real(*a))
    argv = toys.arguments(
        toys.photo_channels(tmp_path / "data", train=2, valid=1, shards=1), strategy="finetune",
        architecture="squeezenet1_1", epochs=1, batch_size=6, blocks=1, trials=2, model_dir=tmp_path / "model",
    )  # fmt: skip
    monkeypatch.setenv("SM_NUM_CPUS", "2")
    threads = torch.get_num_threads()
    try:
        assert tune.main(argv, {}) == 0
        assert torch.get_num_threads() == 2  # embedding has not left training with a single one
    finally:
        torch.set_num_threads(threads)
    assert len(computed) == 2  # of the training photos and of the validation photos
