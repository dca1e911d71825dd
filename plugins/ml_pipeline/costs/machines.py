"""Choose the instance types that the params leave to `plan` by "auto"."""

from __future__ import annotations

from collections.abc import Callable

from ml_pipeline.costs.prices import Prices
from ml_pipeline.requests import disks
from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.types import Params
from model_code.hyperparameters import Strategy

AUTO = "auto"
# The Airflow worker makes the data set version itself.
WORKER = "worker"
CPU, GPU = "ml.m5.xlarge", "ml.g4dn.xlarge"
# c5 has the cheapest cores of the machines that infra/ allows, and decoding uses them all. More cores do not make
# SageMaker bring the photos faster: with 16, a million cost half as much again and take three quarters of the time.
MANY_CORES = "ml.c5.2xlarge"
MANY_PHOTOS = 50_000
"""Unread photos from which a job makes the version: a worker with 4 cores is busy with them for several minutes."""
_FITTING = ("tune_instance_type", "train_instance_type")
_EMBEDDING = "embed_instance_type"
PREPARING = "prepare_instance_type"
NAMES = (PREPARING, _EMBEDDING, *_FITTING)
"""The params that accept "auto"."""


def of_strategy(params: Params) -> dict[str, str]:
    """Return the instance types that fit models: a CPU for a head, which trains in seconds, a GPU for fine-tuning."""
    fits = CPU if params["strategy"] == Strategy.HEAD else GPU
    return {name: fits if params[name] == AUTO else params[name] for name in _FITTING}


def of_preparing(choice: str | None, unread: int, on_disk: int = 0) -> str:
    """Return where to make the data set version of an s3:// prefix: an instance type, or WORKER.

    A job has SageMaker copy all photos to one disk. The worker reads each from S3, so it takes sets of any size.

    Args:
        choice: The param; None or empty: AUTO.
        unread: Photos that no upload has read yet.
        on_disk: Bytes that a job keeps on its disk.

    Raises:
        ValueError: The chosen instance type has no disk that large.
    """
    chosen = choice or AUTO
    machine = MANY_CORES if chosen == AUTO else chosen
    if machine == WORKER or unread < (MANY_PHOTOS if chosen == AUTO else 1):
        return WORKER
    needed, largest = disks.needed_gb(Compute.volume_gb, on_disk), disks.largest_gb(machine)
    if needed <= largest:
        return machine
    if chosen == AUTO:
        return WORKER
    raise ValueError(
        f"{PREPARING}={machine}: the job would need a disk of {needed:,} GB, and the largest has {largest:,}: choose "
        f"{PREPARING}={WORKER}, which reads the photos from S3 as it goes, or several data sets"
    )


def of_embedding(
    params: Params, photos: float, prices: Prices, seconds: Callable[[str, str, float], float]
) -> dict[str, str]:
    """Return the instance type that embeds: the cheaper one, start-up included, so a GPU only for many photos.

    Args:
        params: Params of the run.
        photos: Photos to embed, each view counted.
        prices: Prices in USD, and the assumed start-up.
        seconds: Seconds of work by kind of work, instance type and number of photos.
    """
    if params[_EMBEDDING] != AUTO:
        return {_EMBEDDING: params[_EMBEDDING]}
    startup = float(prices.assumed["startup_seconds"])

    def usd(machine: str) -> float:
        cost = prices.usd(machine, startup + seconds("embed", machine, photos))
        return float("inf") if cost is None else cost

    return {_EMBEDDING: min((CPU, GPU), key=usd)}
