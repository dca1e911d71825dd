"""Train a classifier: `python -m model_code.train --help`.

A trial fits a recipe on the training photos, judges it on the validation photos and prints the objective. A
final run does the same, calibrates on the validation photos, refits on both splits for as many epochs, and
exports the model.
"""

import os
import sys
from collections.abc import Mapping, Sequence

import torch

from model_code.process.cores import cores
from model_code.train import distributed
from model_code.train.arguments import FAILURES, job_from, parser
from model_code.train.run import run


def limit_threads(environment: Mapping[str, str]) -> None:
    """Use the job's share of the cores; torch itself obeys OMP_NUM_THREADS."""
    if "OMP_NUM_THREADS" not in environment:
        torch.set_num_threads(cores())


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0, or 1 with the reason on stderr.
    """
    environment = os.environ if environment is None else environment
    arguments = parser(environment).parse_args(argv)
    limit_threads(environment)
    try:
        with distributed.join(environment) as world:
            run(job_from(arguments, environment, world))
    except FAILURES as error:
        print(f"train: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
