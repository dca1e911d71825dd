"""One hyperparameter: its type, limits and search range. Their table is `model_code.hyperparameters.table`."""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

Value = float | int | str


class HyperparameterError(ValueError):
    """A hyperparameter that is unknown, malformed or outside its limits."""


class Mode(StrEnum):
    """Purpose of one run of `train`."""

    TRIAL = "trial"  # fit on train, judge on valid, print the objective, export nothing
    FINAL = "final"  # fit, calibrate on valid, refit on train + valid, export the model


class Strategy(StrEnum):
    """The weights that are trained, which decides what a job reads."""

    HEAD = "head"  # the backbone is frozen: train a head on stored embeddings
    FINETUNE = "finetune"  # train the last blocks, or all of them, on the photos


class Kind(StrEnum):
    """The type of a value. A SageMaker range exists for every kind but text."""

    FLOAT = "float"
    INTEGER = "integer"
    CHOICE = "choice"
    TEXT = "text"


class Scale(StrEnum):
    """Spacing of a tuner's candidates: the ScalingType of SageMaker's ranges."""

    AUTO = "Auto"
    LINEAR = "Linear"
    LOGARITHMIC = "Logarithmic"
    REVERSE_LOGARITHMIC = "ReverseLogarithmic"


BOTH: Final = frozenset(Strategy)
HEAD: Final = frozenset({Strategy.HEAD})
FINETUNE: Final = frozenset({Strategy.FINETUNE})


@dataclass(frozen=True)
class Hyperparameter:
    """One row of the table.

    Args:
        name: The argument's name without dashes; underscores, because it is SageMaker's name too.
        kind: The type of its value.
        default: The value where none is given.
        help: One line for `--help` and for the DAG's form.
        low: The smallest valid value of a number.
        high: The largest valid value of a number.
        choices: The valid values of a choice.
        search: The range that a tuner searches unless told otherwise: (low, high) of a number, the candidates
            of a choice. None means it is not tuned by default.
        scale: Spacing of a tuner's candidates.
        strategies: The strategies that it means something to.
    """

    name: str
    kind: Kind
    default: Value
    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[Value, ...] = ()
    search: tuple[Value, ...] | None = None
    scale: Scale = Scale.LINEAR
    strategies: frozenset[Strategy] = field(default=BOTH)

    def __post_init__(self) -> None:
        if self.kind is Kind.CHOICE and not self.choices:
            raise HyperparameterError(f"{self.name}: a choice needs choices")
        if self.scale is Scale.LOGARITHMIC and self.search and float(self.search[0]) <= 0:
            raise HyperparameterError(f"{self.name}: a logarithmic range must start above 0")
        for value in (self.default, *(self.search or ())):
            self.check(value)

    @property
    def tunable(self) -> bool:
        """True where a tuner searches it by default."""
        return self.search is not None

    def check(self, value: Value) -> Value:
        """Return `value` if it is valid, else raise HyperparameterError that names the valid values."""
        if self.kind is Kind.CHOICE and value not in self.choices:
            raise HyperparameterError(
                f"{self.name}={value} is not a choice; use one of {', '.join(map(str, self.choices))}"
            )
        if self.kind in (Kind.FLOAT, Kind.INTEGER) and not self.low <= float(value) <= self.high:
            raise HyperparameterError(
                f"{self.name}={value} is out of bounds; use a value from {self.low:g} to {self.high:g}"
            )
        return value

    def parse(self, text: Any) -> Value:
        """Return the checked value that `text` (a string, or a value already of its type) stands for."""
        try:
            if self.kind is Kind.FLOAT:
                return self.check(float(text))
            if self.kind is Kind.INTEGER:
                return self.check(_integer(text))
        except (TypeError, ValueError) as error:
            if isinstance(error, HyperparameterError):
                raise
            raise HyperparameterError(f"{self.name}={text!r} is not of type {self.kind}") from None
        if self.kind is Kind.CHOICE:
            by_text = {str(choice): choice for choice in self.choices}
            return self.check(by_text.get(str(text), str(text)))
        return str(text)


def _integer(text: Any) -> int:
    # SageMaker's tuner may write an integer as "128.0".
    number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    return int(number)
