"""ParameterRanges of a tuning job, checked as SageMaker checks them, as dimensions to sample."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local_aws.errors import validation_error

Document = dict[str, Any]

WIDE = 100.0
"""ScalingType Auto is logarithmic for a range of at least this factor; SageMaker does not publish its rule.
"""


@dataclass(frozen=True)
class Dimension:
    """One tuned hyperparameter. Values travel as strings, as in HyperParameters.

    kind: "continuous", "integer" or "categorical". scaling: "Linear", "Logarithmic" or "ReverseLogarithmic".
    """

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    scaling: str = "Linear"
    choices: tuple[str, ...] = ()

    def sample(self, uniform: float) -> str:
        """Return the value at position `uniform` of [0, 1) on the dimension's scale."""
        if self.kind == "categorical":
            return self.choices[int(uniform * len(self.choices))]
        if self.kind == "integer" and self.scaling == "Linear":
            return str(int(self.low) + int(uniform * (self.high - self.low + 1)))
        value = self.from_unit(uniform)
        return self.text(value)

    def from_unit(self, position: float) -> float:
        """[0, 1] -> [low, high] along the scale."""
        if self.scaling == "Logarithmic":
            return math.exp(math.log(self.low) + position * (math.log(self.high) - math.log(self.low)))
        if self.scaling == "ReverseLogarithmic":
            return 1.0 - math.exp(
                math.log1p(-self.low) + position * (math.log1p(-self.high) - math.log1p(-self.low))
            )
        return self.low + position * (self.high - self.low)

    def to_unit(self, value: float) -> float:
        """[low, high] -> [0, 1] along the scale."""
        if self.high == self.low:
            return 0.0
        if self.scaling == "Logarithmic":
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        if self.scaling == "ReverseLogarithmic":
            return (math.log1p(-value) - math.log1p(-self.low)) / (
                math.log1p(-self.high) - math.log1p(-self.low)
            )
        return (value - self.low) / (self.high - self.low)

    def text(self, value: float) -> str:
        """Format a numeric value as a hyperparameter, clamped to the range."""
        value = min(max(value, self.low), self.high)
        return str(round(value)) if self.kind == "integer" else repr(float(value))

    def position(self, text: str) -> float | None:
        """Map a value of an earlier tuning job to [0, 1]; None when it is outside this range."""
        if self.kind == "categorical":
            return self.choices.index(text) / len(self.choices) if text in self.choices else None
        try:
            value = float(text)
        except ValueError:
            return None
        # Rounding may lead past an end.
        return min(max(self.to_unit(value), 0.0), 1.0) if self.low <= value <= self.high else None


def read_ranges(ranges: Mapping[str, Any]) -> list[Dimension]:
    """Read the dimensions of ParameterRanges.

    Raises:
        AwsError: ValidationException for a range that cannot be sampled.
    """
    if ranges.get("AutoParameters"):
        raise validation_error(
            "AutoParameters need Autotune, which is not supported by local_aws: give ranges."
        )
    dimensions = [
        *(_numeric(entry, "continuous") for entry in ranges.get("ContinuousParameterRanges", [])),
        *(_numeric(entry, "integer") for entry in ranges.get("IntegerParameterRanges", [])),
        *(
            Dimension(entry["Name"], "categorical", choices=tuple(entry["Values"]))
            for entry in ranges.get("CategoricalParameterRanges", [])
        ),
    ]
    names = [dimension.name for dimension in dimensions]
    if len(set(names)) != len(names):
        raise validation_error("Hyperparameter names must be unique across the parameter ranges.")
    return dimensions


def _numeric(entry: Mapping[str, Any], kind: str) -> Dimension:
    name = entry["Name"]
    try:
        convert = int if kind == "integer" else float
        low, high = float(convert(entry["MinValue"])), float(convert(entry["MaxValue"]))
    except ValueError:
        raise validation_error(
            f"The {kind} range of {name} needs numbers, not {entry['MinValue']!r} and {entry['MaxValue']!r}."
        ) from None
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise validation_error(
            f"The range of {name} is empty: MinValue {low} must not be above MaxValue {high}."
        )
    scaling = entry.get("ScalingType", "Auto")
    if scaling == "Logarithmic" and low <= 0:
        raise validation_error(f"Logarithmic scaling of {name} needs a MinValue greater than 0, not {low}.")
    if scaling == "ReverseLogarithmic" and (kind == "integer" or low < 0 or high >= 1):
        raise validation_error(
            f"Reverse logarithmic scaling of {name} needs a continuous range within 0 <= x < 1."
        )
    if scaling == "Auto":
        scaling = "Logarithmic" if low > 0 and high / low >= WIDE else "Linear"
    return Dimension(name, kind, low, high, scaling)


def grid(dimensions: Sequence[Dimension]) -> list[dict[str, str]]:
    """Return every combination of categorical values, the last dimension fastest."""
    names = [dimension.name for dimension in dimensions]
    values = itertools.product(*(dimension.choices for dimension in dimensions))
    return [dict(zip(names, chosen, strict=True)) for chosen in values]


def random_point(dimensions: Sequence[Dimension], seed: int, index: int) -> dict[str, str]:
    """Return the index-th random point of a seed, independent of other draws."""
    generator = random.Random(f"{seed}/{index}")
    return {dimension.name: dimension.sample(generator.random()) for dimension in dimensions}
