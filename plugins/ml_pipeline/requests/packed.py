"""Run the whole search inside one training job: for heads, whose trials take seconds under minutes of start-up."""

from __future__ import annotations

import io
import json
import tarfile

from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.tuning import TuneStrategy
from ml_pipeline.requests.types import Document, Search

# Search strategies of `model_code.tune`.
SEARCHES = {TuneStrategy.BAYESIAN: "bayesian", TuneStrategy.RANDOM: "random"}


def packed_hyperparameters(recipe: Recipe, trials: int, strategy: TuneStrategy) -> dict[str, str]:
    """Return the hyperparameters of the job that runs `tune.py`: fixed values, and how to search the rest.

    Raises:
        ValueError: Only SageMaker's own tuning jobs have this search strategy.
    """
    if strategy not in SEARCHES:
        raise ValueError(
            f"tune_mode=packed searches {' or '.join(SEARCHES)}, not {strategy}; "
            "choose one of those or tune_mode=job"
        )
    values = {name: str(value) for name, value in recipe.fixed.items()}
    values |= {"trials": str(trials), "search": SEARCHES[strategy]}
    if recipe.ranges:
        # The training toolkit decodes each value as JSON once; the script decodes the text that is left.
        values["ranges"] = json.dumps(json.dumps(recipe.ranges))
    return values


def read_trials(model_tar: bytes) -> Document:
    """Read trials.json from the job's model.tar.gz.

    Raises:
        KeyError: The archive holds no trials.json.
    """
    with tarfile.open(fileobj=io.BytesIO(model_tar)) as tar:
        for member in tar:
            if member.name.removeprefix("./") == "trials.json":
                file = tar.extractfile(member)
                assert file is not None
                document: Document = json.loads(file.read())
                return document
    raise KeyError("the job left no trials.json")


def result(job_name: str, document: Document) -> Search:
    """Build the outcome of the search from trials.json."""
    metric = document["objective"]["MetricName"]
    best = document["best"]
    return {
        "tuning_job_name": job_name,
        "best_training_job": _name(job_name, best["number"]),
        "best_hyperparameters": {name: str(value) for name, value in best["hyperparameters"].items()},
        "objective": {"name": metric, "value": best["metrics"][metric]},
        "trials": [
            {
                "name": _name(job_name, trial["number"]),
                "status": trial["status"],
                "value": trial["metrics"].get(metric),
                "seconds": round(trial["seconds"], 1),
                "hyperparameters": {name: str(value) for name, value in trial["searched"].items()},
            }
            for trial in document["trials"]
        ],
    }


def _name(job_name: str, number: int) -> str:
    return f"{job_name}/trial-{number:03d}"
