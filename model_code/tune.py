"""Search hyperparameters inside one job: `python -m model_code.tune --help`.

The same search space as SageMaker's tuning job, without its minutes of instance start-up per trial: for
heads, whose trials are seconds of work.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from model_code import hyperparameters, train
from model_code.checkpoints import fingerprint
from model_code.code_version import code_version
from model_code.cores import cores
from model_code.distributed import World, pick_device
from model_code.fitting import Diverged, Metrics, Report
from model_code.hyperparameters import (
    OBJECTIVE,
    Hyperparameter,
    HyperparameterError,
    Kind,
    Mode,
    Scale,
    Strategy,
    Value,
)
from model_code.metrics import log_metrics
from model_code.progress import Progress
from model_code.train_job import Job

SCHEMA_VERSION: Final = 1
# Trials drawn at random before the model of the objective is believed.
_STARTUP: Final = 4


class Search(StrEnum):
    """How candidates are chosen; SageMaker's names, in lower case."""

    BAYESIAN = "bayesian"
    RANDOM = "random"


class Status(StrEnum):
    """How a trial ended; SageMaker's names."""

    COMPLETED = "Completed"
    FAILED = "Failed"


@dataclass(frozen=True)
class Trial:
    """One candidate and what came of it.

    Args:
        number: From 0, in the order of asking.
        searched: The values that were chosen for it.
        status: Whether it ended well.
        metrics: Of the epoch kept; empty if it failed.
        seconds: How long it took.
        reason: Why it failed.
    """

    number: int
    searched: dict[str, Value]
    status: Status = Status.COMPLETED
    metrics: Metrics = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""

    @property
    def objective(self) -> float:
        """What the search maximises; minus infinity if it failed."""
        return self.metrics.get(OBJECTIVE["MetricName"], float("-inf"))


def propose(
    space: Mapping[str, Hyperparameter], done: Sequence[Trial], count: int, search: Search, seed: int
) -> list[dict[str, Value]]:
    """The next `count` candidates, a pure function of what is known; the very first is the table's defaults.

    A restarted search therefore goes on as it would have.
    """
    first = [_defaults(space)] if not done else []
    wanted = count - len(first)
    if search is Search.BAYESIAN and len(done) + len(first) >= _STARTUP:
        return first + _by_optuna(space, done, wanted, seed)
    draw = np.random.default_rng([seed, len(done)])
    return first + [{name: _draw(row, draw) for name, row in space.items()} for _ in range(wanted)]


def _defaults(space: Mapping[str, Hyperparameter]) -> dict[str, Value]:
    return {name: row.default for name, row in space.items()}


def _draw(row: Hyperparameter, draw: np.random.Generator) -> Value:
    assert row.search is not None
    if row.kind is Kind.CHOICE:
        return row.search[int(draw.integers(len(row.search)))]
    low, high = float(row.search[0]), float(row.search[1])
    if row.scale is Scale.LOGARITHMIC:
        value = float(np.exp(draw.uniform(np.log(low), np.log(high))))
    else:
        value = float(draw.uniform(low, high))
    return row.parse(round(value)) if row.kind is Kind.INTEGER else row.parse(min(max(value, low), high))


def _by_optuna(
    space: Mapping[str, Hyperparameter], done: Sequence[Trial], count: int, seed: int
) -> list[dict[str, Value]]:
    """Tree-structured Parzen estimator over all trials so far (Bergstra et al. 2011), as Optuna has it."""
    try:
        import optuna
    except ImportError:  # SageMaker's own training image has no Optuna
        print("optuna is not installed: drawing at random", file=sys.stderr, flush=True)
        return propose(space, done, count, Search.RANDOM, seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        seed=int(np.random.default_rng([seed, len(done)]).integers(2**31)),
        n_startup_trials=_STARTUP,
        multivariate=True,
        constant_liar=True,
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {name: _distribution(row) for name, row in space.items()}
    for trial in done:
        if trial.status is Status.COMPLETED:
            study.add_trial(
                optuna.trial.create_trial(
                    params=trial.searched, distributions=distributions, value=trial.objective
                )
            )
    return [dict(study.ask(distributions).params) for _ in range(count)]


def _distribution(row: Hyperparameter) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    assert row.search is not None
    if row.kind is Kind.CHOICE:
        return CategoricalDistribution(row.search)
    kind = IntDistribution if row.kind is Kind.INTEGER else FloatDistribution
    return kind(row.search[0], row.search[1], log=row.scale is Scale.LOGARITHMIC)


@dataclass(frozen=True)
class Tuning:
    """A search inside one job.

    Args:
        job: What every trial has in common.
        space: What is searched.
        trials: How many candidates.
        search: How they are chosen.
        parallel: How many are tried at a time. Each round is chosen with the rounds before it known, so
        that the
            result does not depend on which trial of a round ends first.
    """

    job: Job
    space: Mapping[str, Hyperparameter]
    trials: int
    search: Search
    parallel: int

    def __post_init__(self) -> None:
        if self.trials < 1 or self.parallel < 1:
            raise HyperparameterError("trials and parallel must be at least 1")
        for name, row in self.space.items():
            if row.scale is Scale.REVERSE_LOGARITHMIC:
                raise HyperparameterError(
                    f"{name}: only SageMaker's tuning job knows {row.scale}; use Linear or Logarithmic here"
                )

    @property
    def file(self) -> Path:
        """The result."""
        return self.job.folders.model_dir / "trials.json"

    def journal(self, data: Sequence[str]) -> Path | None:
        """Where ended trials are kept for a restart, named after all that decides the search.

        Args:
            data: The `train.data_identity` of the job.
        """
        if self.job.folders.checkpoints is None:
            return None
        ranges = {name: (row.search, row.scale) for name, row in self.space.items()}
        version = self.job.manifest.version
        identity = fingerprint(
            "tune", dict(self.job.values), version, data, ranges, self.search, self.parallel
        )
        return self.job.folders.checkpoints / f"trials-{identity}.json"

    def run(self) -> list[Trial]:
        """Try all candidates; returns them in order.

        Raises:
            Diverged: Not one trial ended well.
        """
        journal = self.journal(train.data_identity(self.job))
        done = _read(journal)[: self.trials]
        progress = Progress(self.trials, "trials")
        progress.advance(len(done))
        while len(done) < self.trials:
            count = min(self.parallel, self.trials - len(done))
            chosen = propose(self.space, done, count, self.search, int(self.job.values["seed"]))
            round_ = [Trial(len(done) + place, searched) for place, searched in enumerate(chosen)]
            with ThreadPoolExecutor(count) as pool:
                for trial in pool.map(self._try, round_):
                    done.append(trial)
                    _say(trial)
                    progress.advance()
            _write(journal, [asdict(trial) for trial in done])
        _write(self.file, self._result(done))
        return done

    def _try(self, trial: Trial) -> Trial:
        started = time.monotonic()
        values = hyperparameters.resolve({**self.job.values, **trial.searched, "mode": Mode.TRIAL})
        folders = self.job.folders
        if values["strategy"] == Strategy.HEAD:
            # Seconds of work: a checkpoint would cost more than it saves.
            folders = replace(folders, checkpoints=None)
        job = _Quiet(**{**vars(self.job), "values": values, "folders": folders})
        try:
            judged = train.judge(job)
        except (Diverged, torch.OutOfMemoryError) as error:
            reason = str(error).partition("\n")[0]
            return replace(trial, status=Status.FAILED, reason=reason, seconds=time.monotonic() - started)
        return replace(trial, metrics=judged.fit.metrics, seconds=time.monotonic() - started)

    def _result(self, done: Sequence[Trial]) -> dict[str, Any]:
        best = _best(done)
        if best.status is not Status.COMPLETED:
            raise Diverged(f"all {len(done)} trials failed: {best.reason}")
        return {
            "schema_version": SCHEMA_VERSION,
            "objective": OBJECTIVE,
            "search": self.search,
            "dataset": {"name": self.job.manifest.name, "version": self.job.manifest.version},
            "code_version": code_version(),
            "fixed": {name: value for name, value in self.job.values.items() if name not in self.space},
            "best": {"number": best.number, "hyperparameters": best.searched, "metrics": best.metrics},
            "trials": [asdict(trial) for trial in done],
        }


def _best(done: Sequence[Trial]) -> Trial:
    """The highest objective; a few hundred photos often tie, and then the lower loss decides."""
    return max(done, key=lambda trial: (trial.objective, -trial.metrics.get("valid_loss", 0.0)))


class _Quiet(Job):
    """A job that prints no epochs: those of parallel trials would be mixed up."""

    def reporter(self, epochs: int) -> Report:
        return lambda metrics: None


def _say(trial: Trial) -> None:
    chosen = " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                      for name, value in trial.searched.items())  # fmt: skip
    outcome = f"valid_accuracy={trial.objective:.4f}" if trial.status is Status.COMPLETED else trial.reason
    print(f"trial={trial.number} {outcome} seconds={trial.seconds:.1f} {chosen}", flush=True)


def _read(path: Path | None) -> list[Trial]:
    if path is None or not path.is_file():
        return []
    try:
        return [Trial(**{**row, "status": Status(row["status"])}) for row in json.loads(path.read_text())]
    except (ValueError, TypeError, KeyError) as error:
        print(f"starting over: {path} is damaged: {error}", file=sys.stderr, flush=True)
        return []


def _write(path: Path | None, content: Any) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(partial, path)


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line: that of `train`, and what concerns the search."""
    arguments = train.parser(environment)
    arguments.prog = "python -m model_code.tune"
    arguments.description = (
        "Search the hyperparameters of a strategy inside one job, and write trials.json to --model_dir. "
        "Hyperparameters given here are fixed; the others are searched where the table has a range for them."
    )
    group = arguments.add_argument_group("search")
    group.add_argument("--trials", type=int, default=12, help="candidates to try (default: %(default)s)")
    group.add_argument(
        "--search", type=Search, choices=list(Search), default=Search.BAYESIAN, help="(default: %(default)s)"
    )
    group.add_argument(
        "--parallel",
        type=int,
        default=None,
        help="candidates at a time (default: 1 a core for heads, else 1)",
    )
    group.add_argument(
        "--ranges",
        type=json.loads,
        default={},
        help='ranges that replace the table\'s, as JSON: {"dropout": {"low": 0, "high": 0.5}, "mixup": null}',
    )
    return arguments


def tuning_from(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Tuning:
    """The search that a command line describes.

    Raises:
        HyperparameterError: A hyperparameter or a range is wrong.
    """
    fixed = hyperparameters.from_environment(environment) | hyperparameters.from_arguments(arguments)
    job = train.job_from(arguments, environment, World(device=pick_device()))
    strategy = str(job.values["strategy"])
    overrides = {name: None for name in fixed if name in hyperparameters.rows(strategy)}
    space = hyperparameters.search_space(strategy, {**overrides, **arguments.ranges})
    alone = strategy != Strategy.HEAD or job.world.device.type == "cuda"
    parallel = arguments.parallel or (1 if alone else cores())
    return Tuning(job, space, arguments.trials, arguments.search, parallel)


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """The command; the exit status: 0, or 1 with the reason on stderr."""
    environment = os.environ if environment is None else environment
    arguments = parser(environment).parse_args(argv)
    try:
        tuning = tuning_from(arguments, environment)
        # Trials in threads, one core each: small matrices gain little from more.
        torch.set_num_threads(max(1, cores() // tuning.parallel))
        done = tuning.run()
    except train.FAILURES as error:
        print(f"tune: {error}", file=sys.stderr, flush=True)
        return 1
    best = _best(done)
    print(f"best trial={best.number} of {len(done)}", flush=True)
    # SageMaker takes the last value of a metric: that of the best.
    log_metrics(**best.metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
