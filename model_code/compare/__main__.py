"""Entry point: `python -m model_code.compare`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from model_code.compare import candidate, page
from model_code.compare.candidate import Candidate, StepError
from model_code.compare.outcome import Outcome, read

# ml.m5.large in us-east-1.
_USD_PER_HOUR = 0.115


def main(argv: Sequence[str] | None = None) -> int:
    """Make and judge every candidate; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        candidates = [Candidate.parse(text) for text in arguments.candidates]
        version = _version(arguments)
    except (ValueError, StepError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    outcomes, failed = [], []
    for number, one in enumerate(candidates, start=1):
        say = f"[{number}/{len(candidates)}] {one.architecture}"
        folder = arguments.output / f"{one.folder}-{version.name}"
        try:
            outcomes.append(_outcome(one, version, folder, arguments.trials, say))
        except StepError as error:
            failed.append(one)
            print(f"{say}: {error}", file=sys.stderr)
    if outcomes:
        _show(outcomes, arguments.usd_per_hour, arguments.output / "compare.html", version.parent.parent.name)
    return 1 if failed else 0


def _version(arguments: argparse.Namespace) -> Path:
    """Make the data set version of the photos, once, and return its folder."""
    command = [
        sys.executable, "-m", "model_code.data", str(arguments.photos), "--output", str(arguments.output),
        "--name", arguments.name,
    ]  # fmt: skip
    log = arguments.output / "data.log"
    candidate.run(command, log)
    made = json.loads(log.read_text().splitlines()[-1])
    return Path(made["manifest_uri"]).parent


def _outcome(one: Candidate, version: Path, folder: Path, trials: int, say: str) -> Outcome:
    """Run the steps that are not done yet: each leaves a mark with its command, and a repeat skips those in front."""
    stale = False
    for number, (name, command) in enumerate(candidate.steps(one, version, folder, trials)):
        mark = folder / f"{number}-{name}.done"
        wanted = "\n".join(command)
        if not stale and mark.exists() and mark.read_text() == wanted:
            continue
        stale = True
        started = time.monotonic()
        print(f"{say}: {name} ...", end=" ", flush=True)
        candidate.run(command, folder / f"{number}-{name}.log")
        mark.write_text(wanted)
        print(f"{time.monotonic() - started:.0f} s", flush=True)
    return read(one.folder, folder)


def _show(outcomes: Sequence[Outcome], usd_per_hour: float, path: Path, dataset: str) -> None:
    table = [[column.removeprefix("#") for column in page.COLUMNS], *page.rows(outcomes, usd_per_hour)]
    widths = [max(len(row[place]) for row in table) for place in range(len(page.COLUMNS))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    path.write_text(page.render(outcomes, usd_per_hour, dataset))
    print(f"plot: {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_code.compare",
        description="Train several architectures on one data set and compare accuracy, time, price and size. Each is "
        "embedded, tuned, trained, exported and evaluated on this machine; a repeated command continues where it was.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("photos", type=Path, help="folder with one folder per class, or a table")
    parser.add_argument(
        "candidates",
        nargs="+",
        metavar="ARCHITECTURE[=WEIGHTS]",
        help="torchvision's name or timm:<name>, and a state_dict or safetensors file",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("compare-out"), help="folder of everything written"
    )
    parser.add_argument("--name", default="photos", help="name of the data set")
    parser.add_argument("--trials", type=int, default=6, help="trials of each candidate's search")
    parser.add_argument(
        "--usd-per-hour", type=float, default=_USD_PER_HOUR, help="hourly price of the serving instance"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
