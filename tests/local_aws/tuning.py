"""Scripts and requests of tuning jobs."""

from __future__ import annotations

from typing import Any

from tests.local_aws.cloud import ENDED, Cloud, eventually, training_request, unique

SCORE = """
import argparse, math
parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float, default=0.5); parser.add_argument("--width", type=int, default=1)
parser.add_argument("--kind", default="a")
options = parser.parse_args()
if options.kind == "broken": raise SystemExit("broken on purpose")
print("score=%.6f" % (1 - (math.log10(options.rate) + 2) ** 2 / 4))
"""

EPOCHS = """
import argparse, time
parser = argparse.ArgumentParser()
parser.add_argument("--quality"); parser.add_argument("--epochs", type=int, default=30)
options = parser.parse_args()
good = options.quality.startswith("good")
for epoch in range(1, options.epochs + 1):
    print("score=%.4f" % ((0.9 if good else 0.1) - 1 / (epoch + 10)), flush=True)
    time.sleep(0.0 if good else 0.25)
"""


def request(cloud: Cloud, source: str, **config: Any) -> dict[str, Any]:
    """A tuning request over `x` (log scale), maximising `score`."""
    bucket = cloud.bucket()
    job = training_request("unused", bucket, cloud.put_code(bucket, train=source))
    job.pop("TrainingJobName")
    job["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "score", "Regex": r"score=([-0-9.]+)"}]
    job["StaticHyperParameters"] = job.pop("HyperParameters")
    settings: dict[str, Any] = {
        "Strategy": "Random",
        "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "score"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 4},
        "ParameterRanges": {"ContinuousParameterRanges": [log_range("rate", "0.0001", "1")]},
        **config,
    }
    return {
        "HyperParameterTuningJobName": unique("tune"),
        "HyperParameterTuningJobConfig": settings,
        "TrainingJobDefinition": job,
    }


def log_range(name: str, low: str, high: str) -> dict[str, str]:
    return {"Name": name, "MinValue": low, "MaxValue": high, "ScalingType": "Logarithmic"}


def categories(name: str, *values: str) -> dict[str, Any]:
    return {"CategoricalParameterRanges": [{"Name": name, "Values": list(values)}]}


def ended(cloud: Cloud, name: str, seconds: float = 60) -> dict[str, Any]:
    def look() -> Any:
        job = cloud.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        return job if job["HyperParameterTuningJobStatus"] in ENDED else None

    return dict(eventually(look, seconds))


def run(cloud: Cloud, tuning: dict[str, Any]) -> dict[str, Any]:
    cloud.sagemaker.create_hyper_parameter_tuning_job(**tuning)
    return ended(cloud, tuning["HyperParameterTuningJobName"])


def trials(cloud: Cloud, name: str, **options: Any) -> list[dict[str, Any]]:
    pages = cloud.sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=name, PaginationConfig={"PageSize": 3}, **options
    )
    return [job for page in pages for job in page["TrainingJobSummaries"]]
