"""The hyperparameters that a run fixes, and those that it leaves to the search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from ml_pipeline.requests.types import Document, Params
from model_code import hyperparameters
from model_code.hyperparameters import HyperparameterError, Mode

# Hyperparameters that have a param of their own, or that users do not set.
APART = ("mode", "strategy", "architecture", "seed")


@dataclass(frozen=True)
class Recipe:
    """The params of `train_and_deploy` that define how a model is trained, checked together.

    Attributes:
        hyperparameters: Fixed values by name; they are not searched.
        ranges: Changes to the search space by name, as in `hyperparameters.search_space`.

    Raises:
        HyperparameterError: The strategy ignores a name, a value is out of bounds, a name is both fixed and searched,
            or nothing is left to search.
    """

    strategy: str
    architecture: str
    seed: int = 0
    hyperparameters: Params | None = None
    ranges: Params | None = None

    def __post_init__(self) -> None:
        if apart := sorted(set(APART) & set(self.hyperparameters or {})):
            raise HyperparameterError(
                f"{apart[0]} does not go into hyperparameters: it has a param of its own"
            )
        for name in self.hyperparameters or {}:
            if (self.ranges or {}).get(name) is not None:
                raise HyperparameterError(
                    f"{name} is in hyperparameters and in ranges: take it out of one of them"
                )
        hyperparameters.resolve(self.fixed)
        hyperparameters.search_space(self.strategy, self.changes)

    @classmethod
    def of(cls, params: Params) -> Recipe:
        """Read the recipe from the params of a run."""
        return cls(**{field.name: params[field.name] for field in fields(cls)})

    @property
    def fixed(self) -> Document:
        """Values that every trial shares."""
        chosen = {"strategy": self.strategy, "architecture": self.architecture, "seed": self.seed}
        return {**chosen, **(self.hyperparameters or {})}

    @property
    def changes(self) -> Document:
        """Changes to the table's search space: those asked for, without the fixed names."""
        return {**(self.ranges or {}), **dict.fromkeys(self.hyperparameters or {})}

    @property
    def parameter_ranges(self) -> dict[str, list[Document]]:
        """SageMaker's ParameterRanges."""
        return hyperparameters.parameter_ranges(self.strategy, self.changes)

    def of_trials(self) -> dict[str, str]:
        """Return SageMaker's StaticHyperParameters: all that the tuner does not set."""
        return hyperparameters.static_hyperparameters(
            {**self.fixed, "mode": Mode.TRIAL.value}, self.parameter_ranges
        )

    def of_final(self, best: Mapping[str, str]) -> dict[str, str]:
        """Return every hyperparameter of the final job: the fixed values and the best trial's."""
        return hyperparameters.static_hyperparameters({**self.fixed, **best, "mode": Mode.FINAL.value})
