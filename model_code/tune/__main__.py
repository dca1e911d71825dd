"""Search hyperparameters inside one job: `python -m model_code.tune --help`.

It searches the same space as SageMaker's tuning job, without minutes of instance start-up per trial: made for
heads, whose trials take seconds.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence

import torch

from model_code import hyperparameters
from model_code.hyperparameters import Strategy
from model_code.process.cores import cores
from model_code.train import arguments as train
from model_code.train.distributed import World, pick_device
from model_code.train.metrics import log_metrics
from model_code.tune.proposals import Search
from model_code.tune.search import Tuning, best_of


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return the parser of the command line: that of `train`, with the arguments of the search."""
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
        help="candidates in parallel (default: one per core for heads, else 1)",
    )
    group.add_argument(
        "--ranges",
        type=json.loads,
        default={},
        help='JSON of ranges that replace the table\'s: {"dropout": {"low": 0, "high": 0.5}, "mixup": null}',
    )
    return arguments


def tuning_from(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Tuning:
    """Return the search that a command line describes.

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
    """Run the command. Returns the exit status: 0, or 1 with the reason on stderr."""
    environment = os.environ if environment is None else environment
    arguments = parser(environment).parse_args(argv)
    try:
        tuning = tuning_from(arguments, environment)
        # Trials run in threads, one core each: small matrices gain little from more.
        torch.set_num_threads(max(1, cores() // tuning.parallel))
        done = tuning.run()
    except train.FAILURES as error:
        print(f"tune: {error}", file=sys.stderr, flush=True)
        return 1
    best = best_of(done)
    print(f"best trial={best.number} of {len(done)}", flush=True)
    # SageMaker keeps the last value of a metric: the best trial's.
    log_metrics(**best.metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
