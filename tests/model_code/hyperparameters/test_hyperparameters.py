import argparse
import json
import math
import re
import subprocess
import sys
from dataclasses import fields

import pytest

from model_code import hyperparameters as hp
from model_code.hyperparameters import __main__ as table
from model_code.hyperparameters.row import HEAD, Hyperparameter, HyperparameterError, Kind, Scale


def test_it_needs_no_torch() -> None:
    code = (
        "import sys, model_code.hyperparameters; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("strategy", hp.Strategy)
def test_recipes_have_exactly_the_fields_of_the_table(strategy: hp.Strategy) -> None:
    from model_code.train.finetune.task import FinetuneRecipe
    from model_code.train.head.task import HeadRecipe

    recipe = HeadRecipe if strategy is hp.Strategy.HEAD else FinetuneRecipe
    assert {field.name for field in fields(recipe)} == set(hp.rows(strategy)) - {
        "mode",
        "strategy",
        "architecture",
    }


@pytest.mark.parametrize("strategy", hp.Strategy)
def test_a_name_has_one_row_per_strategy(strategy: hp.Strategy) -> None:
    names = [row.name for row in hp.TABLE if strategy in row.strategies]
    assert len(names) == len(set(names))


def test_ranges_are_valid_for_botocore_and_the_rate_is_logarithmic() -> None:
    botocore = pytest.importorskip("botocore.session")
    from botocore.validate import ParamValidator

    shape = botocore.get_session().get_service_model("sagemaker").shape_for("ParameterRanges")
    for strategy in hp.Strategy:
        ranges = hp.parameter_ranges(strategy)
        assert not ParamValidator().validate(ranges, shape).has_errors()
        rate = next(r for r in ranges["ContinuousParameterRanges"] if r["Name"] == "learning_rate")
        assert rate["ScalingType"] == "Logarithmic"


def test_overrides_replace_add_and_remove_ranges() -> None:
    ranges = hp.parameter_ranges(
        "head",
        {
            "learning_rate": {"low": 0.001},
            "hidden": {"choices": [0, 512]},
            "batch_size": {"low": 64, "high": 512, "scale": "Logarithmic"},
            "mixup": None,
        },
    )
    continuous = {r["Name"]: r for r in ranges["ContinuousParameterRanges"]}
    assert continuous["learning_rate"]["MinValue"] == "0.001"
    assert "mixup" not in continuous
    assert ranges["CategoricalParameterRanges"] == [{"Name": "hidden", "Values": ["0", "512"]}]
    assert ranges["IntegerParameterRanges"] == [
        {"Name": "batch_size", "MinValue": "64", "MaxValue": "512", "ScalingType": "Logarithmic"}
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lr": {}}, "unknown"),
        ({"blocks": {"low": 1, "high": 2}}, "unknown to strategy=head"),
        ({"dropout": {"low": 0.5, "high": 0.2}}, "below"),
        ({"dropout": {"high": 2}}, "out of bounds"),
        ({"dropout": {"minimum": 0}}, "unknown keys"),
        ({"architecture": {"choices": ["resnet18"]}}, "one value"),
        ({"hidden": {"choices": [0, 8], "low": 0, "high": 8}}, "give its candidates as choices"),
        (dict.fromkeys(hp.search_space("head")), "nothing to search"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(overrides: dict, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        hp.parameter_ranges("head", overrides)


def test_a_choice_has_no_numeric_range() -> None:
    with pytest.raises(HyperparameterError, match="augmentation: a choice has no low and high"):
        hp.search_space("finetune", {"augmentation": {"low": 0, "high": 1}})
    assert hp.search_space("finetune", {"augmentation": {}})["augmentation"].search is not None


def test_static_hyperparameters_leave_out_what_is_searched() -> None:
    ranges = hp.parameter_ranges("head")
    static = hp.static_hyperparameters({"strategy": "head", "epochs": 5}, ranges)
    assert static["epochs"] == "5"
    assert all(isinstance(value, str) for value in static.values())
    searched = {entry["Name"] for entries in ranges.values() for entry in entries}
    assert searched | set(static) == set(hp.rows("head"))
    assert not searched & set(static)


def test_strings_from_sagemaker_become_values() -> None:
    hps = {"strategy": "head", "epochs": "12.0", "learning_rate": "0.01", "sagemaker_program": "train.py"}
    values = hp.resolve(hps)
    assert values["epochs"] == 12
    assert isinstance(values["epochs"], int)
    assert values["learning_rate"] == 0.01
    assert hp.resolve({}) == hp.resolve({"strategy": "head"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": "fast"}, "not of type float"),
        ({"learning_rate": "nan"}, "out of bounds"),
        ({"epochs": "1.5"}, "not of type integer"),
        ({"epochs": 0}, "from 1 to 1000"),
        ({"strategy": "both"}, "use one of head, finetune"),
        ({"learing_rate": 1}, "unknown"),
        ({"ema": 0.9}, "means nothing to strategy=head"),
    ],
)
def test_a_wrong_value_says_what_is_right(values: dict, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        hp.resolve(values)


def test_command_line_wins_over_sm_hps() -> None:
    parser = argparse.ArgumentParser()
    hp.add_arguments(parser)
    given = hp.from_arguments(parser.parse_args(["--epochs", "3"]))
    assert given == {"epochs": "3"}
    environment = {"SM_HPS": json.dumps({"epochs": 7, "seed": 4, "trials": 3})}
    values = hp.resolve(hp.from_environment(environment) | given)
    assert (values["epochs"], values["seed"]) == (3, 4)
    with pytest.raises(HyperparameterError, match="JSON"):
        hp.from_environment({"SM_HPS": "{"})


def test_metric_definitions_find_what_train_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from model_code.train.metrics import log_metrics

    log_metrics(valid_accuracy=0.8123, valid_loss=1e-7, train_loss=12.5, epoch=3)
    line = capsys.readouterr().out
    found = {}
    for definition in hp.metric_definitions():
        if match := re.search(definition["Regex"], line):
            found[definition["Name"]] = float(match.group(1))
    assert found == {"valid_accuracy": 0.8123, "valid_loss": 1e-7, "train_loss": 12.5, "epoch": 3.0}
    assert len(hp.metric_definitions()) <= 40
    assert hp.OBJECTIVE["MetricName"] in {definition["Name"] for definition in hp.metric_definitions()}


@pytest.mark.parametrize("strategy", hp.Strategy)
def test_the_schema_accepts_every_default(strategy: hp.Strategy) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    defaults = {name: row.default for name, row in hp.rows(strategy).items()}
    jsonschema.validate(json.loads(json.dumps(defaults)), hp.schema())
    assert set(hp.schema(without=["seed"])["properties"]) == set(hp.names()) - {"seed"}


@pytest.mark.parametrize("values", [{"epoch": 3}, {"epochs": 0}, {"epochs": 2.5}, {"augmentation": "much"}])
def test_the_schema_refuses_what_resolve_would(values: dict[str, object]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, hp.schema())
    with pytest.raises(HyperparameterError):
        hp.resolve({"strategy": "finetune", **values})


def test_a_row_checks_itself() -> None:
    with pytest.raises(HyperparameterError, match="needs choices"):
        Hyperparameter("x", Kind.CHOICE, "a", "")
    with pytest.raises(HyperparameterError, match="above 0"):
        Hyperparameter("x", Kind.FLOAT, 1.0, "", search=(0.0, 1.0), scale=Scale.LOGARITHMIC)
    with pytest.raises(HyperparameterError, match="out of bounds"):
        Hyperparameter("x", Kind.FLOAT, 2.0, "", low=0.0, high=1.0)
    assert not Hyperparameter("x", Kind.FLOAT, 2.0, "", strategies=HEAD).tunable
    assert math.isinf(Hyperparameter("x", Kind.FLOAT, 2.0, "").high)


def test_the_table_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hyperparameters"])
    table.main()
    assert len(capsys.readouterr().out.splitlines()) == len(hp.TABLE) + 1
