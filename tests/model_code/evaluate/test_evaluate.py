"""`python -m model_code.evaluate` on a real bundle and real shards."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import model_code
from model_code.bundle import archive as bundle
from model_code.bundle.archive import Bundle, pack
from model_code.data.records import Photo
from model_code.data.shards import Sample, Split, read_shard, write_shard
from model_code.evaluate import __main__ as evaluate
from model_code.evaluate import document as evaluation
from model_code.evaluate import judging, scores
from model_code.evaluate.judging import Judgment, Latency
from model_code.evaluate.scores import UNKNOWN, Outcomes
from model_code.predict.predictor import Predictor
from tests.model_code import toys
from tests.model_code.colours import Colours
from tests.model_code.data import looks_files

SCHEMAS = Path(model_code.__file__).parent / "schemas"


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text())


def run(model: Path, test: Path, output: Path, *more: str) -> dict[str, Any]:
    arguments = ["--model", str(model), "--test", str(test), "--output", str(output), "--workers", "2", *more]
    assert evaluate.main(arguments) == 0
    return json.loads((output / "evaluation.json").read_text())


PATH = "red/holiday 2024/IMG_1.jpg"


def predictions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def results(colour_bundle: Colours, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of the bundle's archive, with a manifest, in the layout of a processing job."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "model").mkdir()
    pack(colour_bundle.folder, folder / "model" / "model.tar.gz")
    manifest = toys.manifest(folder / "dataset")
    first = next(read_shard(colour_bundle.shards[Split.TEST]))
    sha256 = first.key.ljust(64, "0")
    found = {PATH: ("stamp", Photo(PATH, first.label, sha256, None, len(first.data), "jpg"))}
    (manifest.parent / "looks.jsonl.gz").write_bytes(looks_files.to_bytes(found))
    run(
        folder / "model",
        colour_bundle.shards[Split.TEST].parent,
        folder / "out",
        "--dataset",
        str(manifest.parent),
    )
    return folder


def test_documents_satisfy_their_schemas(results: Path) -> None:
    jsonschema.validate(json.loads((results / "out" / "evaluation.json").read_text()), schema("evaluation"))
    line = schema("prediction")
    for row in predictions(results / "out"):
        jsonschema.validate(row, line)


def test_a_photo_is_known_by_the_path_where_it_was_found(results: Path) -> None:
    rows = predictions(results / "out")
    assert [row.get("path") for row in rows] == [PATH] + [None] * (len(rows) - 1)


def test_figures_follow_from_the_predictions(results: Path, colour_bundle: Colours) -> None:
    document = json.loads((results / "out" / "evaluation.json").read_text())
    rows = predictions(results / "out")
    samples = list(read_shard(colour_bundle.shards[Split.TEST]))
    assert [row["key"] for row in rows] == [sample.key for sample in samples]
    assert [row["label"] for row in rows] == [sample.label for sample in samples]
    assert document["photos"] == len(samples)
    assert document["accuracy"] == pytest.approx(np.mean([row["label"] == row["prediction"] for row in rows]))
    assert sum(count for *_, count in document["confusion"]) == len(samples)
    assert document["top5_accuracy"] == 1  # there are three classes
    assert document["multiclass_classification_metrics"]["accuracy"]["value"] == pytest.approx(
        document["accuracy"]
    )
    answers = np.array([row["probabilities"] for row in rows])
    assert np.abs(answers.sum(1) - 1).max() < 1e-5
    assert document["log_loss"] == pytest.approx(
        -np.mean([np.log(p[toys.CLASSES.index(row["label"])]) for p, row in zip(answers, rows, strict=True)]),
        abs=1e-3,
    )


def test_what_is_judged_is_what_is_served(results: Path, colour_bundle: Colours) -> None:
    document = json.loads((results / "out" / "evaluation.json").read_text())
    predictor = Predictor.open(colour_bundle.folder, threads=1)
    assert document["runtime"] == predictor.runtime == "onnx-int8"
    samples = list(read_shard(colour_bundle.shards[Split.TEST]))[:5]
    served = predictor.predict([sample.data for sample in samples])
    judged = np.array([row["probabilities"] for row in predictions(results / "out")[:5]])
    assert np.abs(served - judged).max() < 1e-5


def test_origin_is_named(results: Path) -> None:
    document = json.loads((results / "out" / "evaluation.json").read_text())
    archive = results / "model" / "model.tar.gz"
    assert document["model"]["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert document["dataset"]["name"] == "toy"
    assert document["comparison"] is None
    assert not (results / "out" / "champion").exists()


def test_champion_is_judged_on_the_same_photos(results: Path, colour_bundle: Colours, tmp_path: Path) -> None:
    document = against_champion(colour_bundle, tmp_path)
    jsonschema.validate(document, schema("evaluation"))
    comparison = document["comparison"]
    assert comparison["champion_accuracy"] == 0
    assert comparison["difference"] == comparison["challenger_accuracy"] == document["accuracy"]
    assert comparison["ci_low"] <= comparison["difference"] <= comparison["ci_high"]
    theirs = json.loads((tmp_path / "out" / "champion" / "evaluation.json").read_text())
    jsonschema.validate(theirs, schema("evaluation"))
    assert theirs["accuracy"] == 0
    assert {path.name for path in (tmp_path / "out" / "champion").iterdir()} == {
        "evaluation.json",
        "predictions.jsonl",
        "report.html",
    }
    assert "Better than the champion" in (tmp_path / "out" / "report.html").read_text()


def against_champion(
    colour_bundle: Colours, tmp_path: Path, classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """The evaluation in `tmp_path / "out"` next to a champion with other classes, see `_turn_classes`."""
    champion = colour_bundle.copy(tmp_path / "champion")
    _turn_classes(champion, classes)
    test = colour_bundle.shards[Split.TEST].parent
    return run(colour_bundle.folder, test, tmp_path / "out", "--champion", str(champion), "--runtime", "onnx")


def _turn_classes(folder: Path, names: Sequence[str] | None = None) -> None:
    """Rename the classes: every answer becomes another class's."""
    card = json.loads((folder / "model.json").read_text())
    card["classes"] = list(names or [*card["classes"][1:], card["classes"][0]])
    del card["files"], card["schema_version"]
    bundle.write_card(folder, card)


def test_classes_that_a_model_does_not_know_count_as_wrong(colour_bundle: Colours, tmp_path: Path) -> None:
    blue, green, _ = toys.CLASSES
    document = against_champion(colour_bundle, tmp_path, [blue, green, "violet"])
    theirs = json.loads((tmp_path / "out" / "champion" / "evaluation.json").read_text())
    jsonschema.validate(theirs, schema("evaluation"))
    assert theirs["unknown_classes"] == {"red": 16}
    assert theirs["accuracy"] <= 2 / 3
    assert theirs["log_loss"] is not None
    comparison = document["comparison"]
    assert comparison["classes_added"] == ["red"]
    assert comparison["classes_removed"] == ["violet"]
    assert comparison["photos"] == 48
    assert comparison["common"]["photos"] == 32
    assert comparison["common"]["champion_accuracy"] == comparison["common"]["challenger_accuracy"]


def test_a_champion_that_knows_none_of_the_classes_is_wrong_every_time(
    colour_bundle: Colours, tmp_path: Path
) -> None:
    # Someone renamed the folders.
    document = against_champion(colour_bundle, tmp_path, ["Blue", "Green", "Red"])
    theirs = json.loads((tmp_path / "out" / "champion" / "evaluation.json").read_text())
    for written in (document, theirs):
        jsonschema.validate(written, schema("evaluation"))
    assert theirs["unknown_classes"] == dict.fromkeys(toys.CLASSES, 16)
    assert theirs["accuracy"] == theirs["macro_f1"] == theirs["macro_f1_interval"]["high"] == 0
    assert theirs["log_loss"] is None
    # The gate compares predictions with labels, photo by photo: the champion's are all wrong.
    assert not any(row["prediction"] == row["label"] for row in predictions(tmp_path / "out" / "champion"))
    comparison = document["comparison"]
    assert comparison["difference"] == document["accuracy"] > 0.9
    assert comparison["ci_low"] > 0.8
    assert comparison["common"] == {"photos": 0, "challenger_accuracy": None, "champion_accuracy": None}


def test_unreadable_photo_is_listed_and_harms_no_other(colour_bundle: Colours, tmp_path: Path) -> None:
    samples = list(read_shard(colour_bundle.shards[Split.TEST]))[:20]
    broken = Sample("f" * 20, "red", b"\xff\xd8\xff not a photo", "jpg")
    write_shard(tmp_path / "new.tar", Split.TEST, [*samples[:7], broken, *samples[7:]])
    document = run(colour_bundle.folder, tmp_path, tmp_path / "out", "--runtime", "onnx")
    assert [row["key"] for row in document["unreadable"]] == ["f" * 20]
    assert document["photos"] == 20
    assert [row["key"] for row in predictions(tmp_path / "out")] == [sample.key for sample in samples]


def test_worst_mistakes_are_the_surest(colour_bundle: Colours) -> None:
    predictor = Predictor.open(colour_bundle.folder, runtime="onnx", threads=1)
    predictor.card = dataclasses.replace(predictor.card, classes=("red", "blue", "green"))
    judgment = judging.judge(predictor, [colour_bundle.shards[Split.TEST]], workers=1, worst=5)
    assert len(judgment.worst) == 5
    sure = [mistake.confidence for mistake in judgment.worst]
    assert sure == sorted(sure, reverse=True)
    assert min(sure) >= np.sort(judgment.outcomes.confidence)[-5] - 1e-9
    assert all(mistake.label != mistake.prediction for mistake in judgment.worst)


def test_same_evaluation_gives_the_same_figures(
    results: Path, colour_bundle: Colours, tmp_path: Path
) -> None:
    dataset = ("--dataset", str(results / "dataset"))
    again = run(
        results / "model", colour_bundle.shards[Split.TEST].parent, tmp_path, "--workers", "1", *dataset
    )
    first = json.loads((results / "out" / "evaluation.json").read_text())
    for measured in ("latency", "photos_per_second"):
        del again[measured], first[measured]
    assert again == first
    assert (tmp_path / "predictions.jsonl").read_bytes() == (
        results / "out" / "predictions.jsonl"
    ).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere"], "nowhere holds no model: give --model a model.tar.gz"),
        (["--test", "nowhere"], "nowhere holds no shards: give --test"),
        (["--champion", "damaged.tar.gz"], "damaged.tar.gz is truncated, damaged"),
        (["--dataset", "damaged.tar.gz"], "manifest"),
        (
            ["--champion", "nowhere"],
            "no champion at nowhere; give a path that exists, or leave --champion out",
        ),
        (["--champion", "empty"], "empty holds no model: give --champion a model.tar.gz"),
        (["--dataset", "nowhere"], "no dataset at nowhere"),
    ],
)
def test_wrong_input_gets_one_line(
    colour_bundle: Colours,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.tar.gz").write_bytes(b"no archive")
    (tmp_path / "empty").mkdir()
    usual = {
        "--model": str(colour_bundle.folder),
        "--test": str(colour_bundle.shards[Split.TEST].parent),
        "--output": "out",
        "--runtime": "onnx",
    }
    usual[arguments[0]] = arguments[1]
    assert evaluate.main([part for pair in usual.items() for part in pair]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("evaluate: ")
    assert message in line


def test_two_archives_in_a_channel_are_refused(tmp_path: Path) -> None:
    for name in ("a.tar.gz", "b.tar.gz"):
        (tmp_path / name).touch()
    with pytest.raises(judging.EvaluationError, match="leave one model"):
        evaluate.find_model(tmp_path)


def test_help_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "model_code.evaluate", "--help"], capture_output=True, text=True, check=True
    )
    assert "number of worst mistakes shown as thumbnails" in done.stdout
    assert "/opt/ml/processing/input/model" in done.stdout


def judgment_of(labels: Sequence[int], predicted: Sequence[int], classes: int) -> Judgment:
    logits = np.eye(classes, dtype=np.float32)[list(predicted)] * 3
    outcomes = Outcomes.of(logits, np.array(labels, np.int64), 1.0)
    keys = [f"{number:020d}" for number in range(len(labels))]
    return Judgment(keys, outcomes, [], {}, [], Latency(1, 2, 3), 100.0)


def test_comparison_counts_only_photos_that_both_could_read(colour_bundle: Colours) -> None:
    card = Bundle.open(colour_bundle.folder).card
    subject = evaluation.Subject(card, "onnx", None, None)
    ours, theirs = (
        judgment_of([0, 1, 2, 2], [0, 1, 2, 0], 3),
        judgment_of([0, 1, 2, UNKNOWN], [1, 1, 2, 0], 3),
    )
    theirs.keys[0] = "another photo"
    documents = [evaluation.evaluate(subject, judgment) for judgment in (ours, theirs)]
    comparison = evaluation.compare(documents[0], ours, documents[1], theirs)
    assert comparison["photos"] == 3
    assert comparison["difference"] == 0
    assert comparison["common"]["photos"] == 2
    seen = {ours.keys[1]}
    assert evaluation.compare(documents[0], ours, documents[1], theirs, seen)["photos"] == 2
    assert evaluation.compare(documents[0], ours, documents[1], theirs, set(ours.keys)) is None


def test_abstention_by_hand() -> None:
    outcomes = judgment_of([0, 1], [0, 0], 2).outcomes
    assert evaluation.abstention(outcomes, 0.0) == {"threshold": 0.0, "rate": 0.0, "accuracy_answered": 0.5}
    assert evaluation.abstention(outcomes, 1.0) == {"threshold": 1.0, "rate": 1.0, "accuracy_answered": None}


def test_registry_layout_holds_the_matrix_for_few_classes_only() -> None:
    for classes, expected in ((3, True), (60, False)):
        outcomes = judgment_of([0, 1, 2], [0, 1, 1], classes).outcomes
        matrix = scores.confusion(outcomes, classes)
        names = tuple(f"c{number}" for number in range(classes))
        metrics = evaluation.model_quality(
            names, matrix, scores.class_scores(matrix), scores.accuracy_interval(outcomes.hits)
        )
        assert ("confusion_matrix" in metrics) is expected
        assert metrics["accuracy"]["value"] == pytest.approx(2 / 3)
        assert metrics["weighted_recall"]["value"] == pytest.approx(2 / 3)
    assert evaluation.model_quality(
        ("a", "b"), np.array([[3, 0], [0, 1], [0, 0]]), scores.class_scores(np.array([[3, 0], [0, 1], [0, 0]])),
        scores.accuracy_interval(np.ones(4, bool)),
    )["confusion_matrix"] == {"a": {"a": 3, "b": 0}, "b": {"a": 0, "b": 1}}  # fmt: skip
