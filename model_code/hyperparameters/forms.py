"""Every form of the hyperparameters of `train` and `tune`, read off one table.

Command line arguments, SageMaker's ParameterRanges and MetricDefinitions, the static hyperparameters of a job
and the form of the DAG all derive from `TABLE`. Nothing here imports torch, so that Airflow can import it.
"""

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict

from model_code.hyperparameters.row import (
    BOTH,
    Hyperparameter,
    HyperparameterError,
    Kind,
    Scale,
    Strategy,
    Value,
)
from model_code.hyperparameters.table import TABLE


class Objective(TypedDict):
    """SageMaker's HyperParameterTuningJobObjective."""

    Type: str
    MetricName: str


class MetricDefinition(TypedDict):
    """SageMaker's MetricDefinition: a name and the regular expression that finds it in the log."""

    Name: str
    Regex: str


OBJECTIVE: Final[Objective] = {"Type": "Maximize", "MetricName": "valid_accuracy"}

METRICS: Final = (
    "valid_accuracy",
    "valid_loss",
    "train_loss",
    "epoch",
    "temperature",
    "photos_per_second",
)

# SageMaker adds these to a job's hyperparameters for its own toolkit; they are not checked here.
_FOREIGN_PREFIXES: Final = ("sagemaker_", "_tuning_objective_metric")


def names() -> tuple[str, ...]:
    """Return every name, once, in the order of the table."""
    return tuple(dict.fromkeys(row.name for row in TABLE))


def rows(strategy: Strategy | str) -> dict[str, Hyperparameter]:
    """Return the rows that mean something to `strategy`, by name."""
    return {row.name: row for row in TABLE if Strategy(strategy) in row.strategies}


def resolve(values: Mapping[str, Any]) -> dict[str, Value]:
    """Check `values` (strings or typed) and fill in the defaults of their strategy.

    SageMaker's own entries (`sagemaker_*`) are dropped. A name that belongs only to the other strategy is an
    error, because it would be silently ignored.

    Raises:
        HyperparameterError: An unknown name, or a value of the wrong type or out of bounds.
    """
    given = {name: value for name, value in values.items() if not name.startswith(_FOREIGN_PREFIXES)}
    strategy_row = next(row for row in TABLE if row.name == "strategy")
    strategy = strategy_row.parse(given.get("strategy", strategy_row.default))
    known = rows(str(strategy))
    for name in given:
        if name not in known:
            reason = f"means nothing to strategy={strategy}" if name in names() else "is unknown"
            raise HyperparameterError(f"hyperparameter {name} {reason}; use one of {', '.join(known)}")
    return {name: row.parse(given[name]) if name in given else row.default for name, row in known.items()}


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the hyperparameters that SageMaker left in SM_HPS (a JSON object), or none; not yet checked."""
    try:
        values = json.loads(environment.get("SM_HPS") or "{}")
    except json.JSONDecodeError as error:
        raise HyperparameterError(f"SM_HPS is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise HyperparameterError("SM_HPS must be a JSON object")
    known = names()
    return {name: value for name, value in values.items() if name in known}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one argument per name. Names not given are absent from the namespace: `resolve` fills them in."""
    group = parser.add_argument_group("hyperparameters")
    for name in names():
        variants = [row for row in TABLE if row.name == name]
        defaults = ", ".join(
            f"{row.default} for {'/'.join(sorted(row.strategies))}"
            if row.strategies != BOTH
            else str(row.default)
            for row in variants
        )
        group.add_argument(
            f"--{name}",
            default=argparse.SUPPRESS,
            metavar="{" + ",".join(map(str, variants[0].choices)) + "}"
            if variants[0].choices
            else name.upper(),
            help=f"{variants[0].help} (default: {defaults})",
        )


def from_arguments(namespace: argparse.Namespace) -> dict[str, Any]:
    """Return the hyperparameters that the command line gave; not yet checked."""
    return {name: getattr(namespace, name) for name in names() if hasattr(namespace, name)}


def search_space(
    strategy: Strategy | str, overrides: Mapping[str, Mapping[str, Any] | None] | None = None
) -> dict[str, Hyperparameter]:
    """Return the rows to search, each with its range in `search`.

    Args:
        strategy: The strategy whose table is searched.
        overrides: By name: None takes it out of the search; `{"low", "high", "scale"}` or `{"choices"}`
            replaces its range, or adds one where there was none. What is left out keeps the table's value.

    Raises:
        HyperparameterError: An override of an unknown name, or outside the limits.
    """
    known = rows(strategy)
    space = {name: row for name, row in known.items() if row.tunable}
    for name, override in (overrides or {}).items():
        if name not in known:
            raise HyperparameterError(
                f"cannot search {name}: unknown to strategy={strategy}; use one of {', '.join(known)}"
            )
        if override is None:
            space.pop(name, None)
        else:
            space[name] = _overridden(known[name], override)
    if not space:
        raise HyperparameterError("nothing to search: every range was taken out; leave at least one in")
    return space


def _overridden(row: Hyperparameter, override: Mapping[str, Any]) -> Hyperparameter:
    if row.kind is Kind.TEXT or row.name in ("mode", "strategy"):
        raise HyperparameterError(f"{row.name} cannot be searched; give it one value")
    if unknown := set(override) - {"low", "high", "scale", "choices"}:
        raise HyperparameterError(
            f"{row.name}: unknown keys {sorted(unknown)}; use low, high, scale or choices"
        )
    if (row.kind is Kind.CHOICE or "choices" in override) and {"low", "high"} & set(override):
        raise HyperparameterError(f"{row.name}: a choice has no low and high; give its candidates as choices")
    changes = dict(vars(row), scale=Scale(override.get("scale", row.scale)))
    if "choices" in override:
        candidates = tuple(row.parse(choice) for choice in override["choices"])
        return Hyperparameter(
            **{
                **changes,
                "kind": Kind.CHOICE,
                "choices": candidates,
                "search": candidates,
                "default": candidates[0],
                "scale": Scale.LINEAR,
            }
        )
    if row.kind is Kind.CHOICE:
        return Hyperparameter(**{**changes, "search": row.search or row.choices})
    low, high = row.search or (row.low, row.high)
    low, high = row.parse(override.get("low", low)), row.parse(override.get("high", high))
    if not float(low) < float(high):
        raise HyperparameterError(f"{row.name}: low={low} must be below high={high}")
    # A tuner's first candidate is the default: it must be inside the range.
    default = row.parse(min(max(float(row.default), float(low)), float(high)))
    return Hyperparameter(**{**changes, "search": (low, high), "default": default})


def parameter_ranges(
    strategy: Strategy | str, overrides: Mapping[str, Mapping[str, Any] | None] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return the ParameterRanges for `strategy`: numbers are strings, as its API wants. See `search_space`."""
    ranges: dict[str, list[dict[str, Any]]] = {
        "ContinuousParameterRanges": [],
        "IntegerParameterRanges": [],
        "CategoricalParameterRanges": [],
    }
    for name, row in search_space(strategy, overrides).items():
        search = [str(value) for value in row.search or ()]
        if row.kind is Kind.CHOICE:
            ranges["CategoricalParameterRanges"].append({"Name": name, "Values": search})
        else:
            key = "ContinuousParameterRanges" if row.kind is Kind.FLOAT else "IntegerParameterRanges"
            ranges[key].append(
                {"Name": name, "MinValue": search[0], "MaxValue": search[1], "ScalingType": row.scale.value}
            )
    return ranges


def static_hyperparameters(
    values: Mapping[str, Any], ranges: Mapping[str, Iterable[Mapping[str, Any]]] | None = None
) -> dict[str, str]:
    """SageMaker's StaticHyperParameters: `values` with their strategy's defaults, checked, as strings.

    Args:
        values: Fixed values; `strategy` chooses the table.
        ranges: SageMaker's ParameterRanges; their names are left out, because the tuner sets them.
    """
    tuned = {entry["Name"] for entries in (ranges or {}).values() for entry in entries}
    return {name: str(value) for name, value in resolve(values).items() if name not in tuned}


def metric_definitions() -> list[MetricDefinition]:
    """SageMaker's MetricDefinitions for the log lines of `train` (`name=value`)."""
    number = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"
    # The boundary keeps `train_loss` from matching inside a longer name.
    return [{"Name": name, "Regex": rf"(?:^|\s){name}={number}"} for name in METRICS]


def schema(without: Iterable[str] = ()) -> dict[str, Any]:
    """JSON Schema of an object of hyperparameters by name, whatever the strategy, but for those in `without`.

    A name has the widest bounds that any strategy gives it; `resolve` says which names a strategy knows.
    """
    properties = {}
    for name in (name for name in names() if name not in set(without)):
        variants = [row for row in TABLE if row.name == name]
        properties[name] = {"description": variants[0].help, **_json_type(variants)}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _json_type(variants: Sequence[Hyperparameter]) -> dict[str, Any]:
    kind = variants[0].kind
    if kind is Kind.CHOICE:
        return {
            "type": "string",
            "enum": list(dict.fromkeys(str(c) for row in variants for c in row.choices)),
        }
    if kind is Kind.TEXT:
        return {"type": "string"}
    bounds = {"minimum": min(row.low for row in variants), "maximum": max(row.high for row in variants)}
    finite = {key: bound for key, bound in bounds.items() if math.isfinite(bound)}
    return {"type": "integer" if kind is Kind.INTEGER else "number", **finite}
