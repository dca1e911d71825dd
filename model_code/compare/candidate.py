"""A candidate: an architecture with its weights, and the commands that make and judge a model of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class StepError(RuntimeError):
    """A step of a candidate failed. The message names the log."""


@dataclass(frozen=True)
class Candidate:
    """An architecture and its weights file; None leaves the backbone untrained."""

    architecture: str
    weights: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Candidate:
        """Read `<architecture>` or `<architecture>=<weights file>`.

        Raises:
            ValueError: The weights file does not exist.
        """
        architecture, _, weights = text.partition("=")
        path = Path(weights).expanduser() if weights else None
        if path is not None and not path.is_file():
            raise ValueError(f"{text}: there is no weights file {path}")
        return cls(architecture, path)

    @property
    def folder(self) -> str:
        """Name of the candidate's folder."""
        stem = f"-{self.weights.stem}" if self.weights else ""
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", self.architecture + stem)


def steps(candidate: Candidate, version: Path, folder: Path, trials: int) -> Iterator[tuple[str, list[str]]]:
    """Yield name and command of each step, in order; a later command may need what an earlier one wrote.

    Args:
        candidate: What to make.
        version: A data set version with the channel folders train, valid and test.
        folder: Receives embeddings, trials, model and evaluation.
        trials: Of the hyperparameter search.
    """
    weights = ["--weights", str(candidate.weights)] if candidate.weights else []
    network = ["--architecture", candidate.architecture, *weights]
    splits = []
    for split in ("train", "valid"):
        out = str(folder / "embeddings" / split)
        yield "embed", _module("embed", "--shards", version / split, "--output", out, *network)
        splits += [f"--{split}", out]
    common = [*splits, "--dataset", version, *network]
    yield "tune", _module("tune", *common, "--trials", trials, "--model_dir", folder / "tuned")
    best = json.loads((folder / "tuned" / "trials.json").read_text())["best"]["hyperparameters"]
    recipe = [part for name, value in best.items() for part in (f"--{name}", value)]
    photos = ["--calibration", version / "train", "--valid_photos", version / "valid"]
    yield (
        "train",
        _module("train", "--mode", "final", *common, *photos, "--model_dir", folder / "model", *recipe),
    )
    yield "evaluate", _module(
        "evaluate", "--model", folder / "model", "--test", version / "test", "--dataset", version,
        "--output", folder / "evaluation",
    )  # fmt: skip


def run(command: list[str], log: Path) -> None:
    """Run a step; its output goes to `log`.

    Raises:
        StepError: It failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        if subprocess.call(command, stdout=file, stderr=subprocess.STDOUT):
            lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
            raise StepError(f"{lines[-1]} (all of it: {log})")


def _module(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"model_code.{name}", *map(str, arguments)]
