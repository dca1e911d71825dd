"""Run a hyperparameter search in one process, resumable."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from model_code import hyperparameters
from model_code.hyperparameters import OBJECTIVE, Hyperparameter, HyperparameterError, Mode, Scale, Strategy
from model_code.process.code_version import code_version
from model_code.process.errors import first_line
from model_code.process.progress import Progress
from model_code.train import run
from model_code.train.checkpoints import fingerprint
from model_code.train.job import Job
from model_code.train.loop import Diverged, Report
from model_code.tune.proposals import Search, Status, Trial, propose

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class Tuning:
    """A search inside one job.

    Args:
        job: Settings common to all trials.
        space: The hyperparameters searched.
        trials: Number of candidates.
        search: Strategy that chooses them.
        parallel: Trials per round. A round is chosen from the results of earlier rounds, so the result does not
            depend on which trial of a round ends first.
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
                    f"{name}: {row.scale} exists only in SageMaker's tuning jobs; use Linear or Logarithmic here"
                )

    @property
    def file(self) -> Path:
        """The result."""
        return self.job.folders.model_dir / "trials.json"

    def journal(self, data: Sequence[str]) -> Path | None:
        """Return the file that keeps finished trials for a restart, named after everything that determines the search.

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
        """Run all trials and return them in order.

        Raises:
            Diverged: Every trial failed.
        """
        journal = self.journal(run.data_identity(self.job))
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
            judged = run.judge(job)
        except (Diverged, torch.OutOfMemoryError) as error:
            reason = first_line(error)
            return replace(trial, status=Status.FAILED, reason=reason, seconds=time.monotonic() - started)
        return replace(trial, metrics=judged.fit.metrics, seconds=time.monotonic() - started)

    def _result(self, done: Sequence[Trial]) -> dict[str, Any]:
        best = best_of(done)
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


def best_of(done: Sequence[Trial]) -> Trial:
    """Return the trial with the highest objective; ties, common with few photos, go to the lower loss."""
    return max(done, key=lambda trial: (trial.objective, -trial.metrics.get("valid_loss", 0.0)))


class _Quiet(Job):
    """A job that prints no epochs: the lines of parallel trials would be mixed up."""

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
