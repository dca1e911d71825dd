"""Estimate the cost and the time of a run before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import cast

from ml_pipeline.aws.clients import Client
from ml_pipeline.costs import checks as combinations
from ml_pipeline.costs import machines, rates
from ml_pipeline.costs.prices import PriceError, Prices, no_price
from ml_pipeline.costs.rates import Rate
from ml_pipeline.dataset import sources
from ml_pipeline.dataset.photos import count_photos
from ml_pipeline.dataset.prepare import Preparation, on_disk
from ml_pipeline.dataset.weights import teacher_of
from ml_pipeline.requests import instance, processing
from ml_pipeline.requests.job import LONGEST_HOURS, Channel, Compute, Mode, in_place
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.search import trials_of
from ml_pipeline.requests.types import BilledEndpoint, Params, Planned, PlannedStep
from ml_pipeline.settings import Settings
from model_code import hyperparameters
from model_code.hyperparameters import Strategy

# Shares of the splits that upload makes, close enough for an estimate.
TRAIN_SHARE, VALID_SHARE, TEST_SHARE = 0.7, 0.15, 0.15
# Exporting, quantizing and packing a model takes about this long on any instance.
EXPORT_SECONDS = 60.0
# Of 100 kB each.
_PHOTOS_A_SHARD = 600
_LISTED_AT_ONCE = 1000
# Jobs that keep what they have done when they are stopped.
_GO_ON = ("prepare", "embed", "embed_teacher")
# A captured photo of 100 kB, which data capture writes as base64.
_CAPTURED_GB = 100e3 * 4 / 3 / 1e9
_DAYS_A_MONTH = 30
# Limits of AWS that are lower than a training job's.
_LONGEST_HOURS = {"evaluate": processing.LONGEST_HOURS, "ec2": instance.LONGEST_HOURS}


class OverBudget(ValueError):
    """The estimate is above budget_usd; the message names the most expensive step and what to change."""


class TooLong(ValueError):
    """A job would be stopped at its limit; the message names it and what to change."""


@dataclass(frozen=True)
class Step:
    """One paid step of a run.

    Attributes:
        seconds: Billed time of each instance, start-up included.
        job_seconds: Work of one job.
        usd: None where no price list has the machine.
    """

    step: str
    instance_type: str
    instance_count: int
    seconds: float
    job_seconds: float
    usd: float | None


def make(
    params: Params,
    defaults: Params,
    settings: Settings,
    s3: Client,
    endpoints: Sequence[BilledEndpoint] = (),
    replaces: str | None = None,
) -> Planned:
    """Estimate a run from the params of `train_and_deploy`, with `dataset_name` and `endpoint_name` filled in.

    Args:
        params: Params of the run.
        defaults: Values of params that were not set.
        settings: Settings of the pipeline, with the account's bucket and region.
        s3: boto3 client of S3.
        endpoints: The project's endpoints that are being billed.
        replaces: What the run replaces on its endpoint, in words; see `deployment.takeover`.

    Raises:
        OverBudget: The estimate is above `budget_usd`.
        PriceError: There is a `budget_usd`, and no price for a machine.
        TooLong: A job would be stopped at `max_job_hours`.
        HyperparameterError: `hyperparameters` or `ranges` do not suit the strategy.
        ValueError: There are no photos at `data`, or params are incompatible.
    """
    given, params = params, {**params, **machines.of_strategy(params)}
    combinations.check(params, settings)
    photos, size = count_photos(params["data"], s3)
    if not photos:
        raise ValueError(
            f"no photos at {params['data']!r}; give a folder with one folder of photos per class"
        )
    unread = unread_photos(params, photos, settings, s3)
    params[machines.PREPARING] = machines.WORKER
    if sources.is_prefix(params["data"]):
        params[machines.PREPARING] = machines.of_preparing(
            given[machines.PREPARING], unread, on_disk(photos, size)
        )
        if params[machines.PREPARING] != machines.WORKER:
            sources.check_region(s3, params["data"], settings.region)
    prices = Prices.load(settings)
    # Rates measured on this machine do not apply to the instances of the estimate.
    measured = [] if settings.local else rates.load(s3, settings)
    speed = _speed(params["architecture"], prices, measured)
    embedded = photos * (TRAIN_SHARE * int(params["views"]) + VALID_SHARE + TEST_SHARE)
    params.update(machines.of_embedding(params, embedded, prices, speed))
    steps = estimate(params, photos, prices, measured, unread)
    check_time(steps, float(params["max_job_hours"]))
    total = round(sum(step.usd or 0.0 for step in steps), 4)
    check_budget(total, params.get("budget_usd"), steps)
    serving = prices.usd(params["endpoint_instance_type"], 3600, int(params["endpoint_instance_count"]))
    hourly = None if serving is None else round(serving, 4)
    requests = requests_usd(params, photos, unread, prices)
    return {
        "dataset_name": params["dataset_name"],
        "endpoint_name": params["endpoint_name"],
        "replaces": replaces,
        "estimate_usd": total,
        "requests_usd": requests,
        "steps": [cast(PlannedStep, asdict(step)) for step in steps],
        "machines": {name: params[name] for name in machines.NAMES},
        "photos": photos,
        "endpoint_usd_per_hour": hourly,
        "endpoints": [priced(endpoint, prices) for endpoint in endpoints],
        "out_of_use": combinations.out_of_use(given, defaults),
        "note": note(prices, steps, hourly, captured(params, prices), streamed(params, size)),
    }


def priced(endpoint: BilledEndpoint, prices: Prices) -> BilledEndpoint:
    """Return `endpoint` with its price per hour, None if no price list has its instance type."""
    machine = endpoint["instance_type"]
    usd = prices.usd(machine, 3600, endpoint["instance_count"]) if machine else None
    return {**endpoint, "usd_per_hour": usd if usd is None else round(usd, 4)}


def captured(params: Params, prices: Prices) -> str | None:
    """Say which requests the endpoint keeps, how long and at what cost; None where it keeps none."""
    percent, days = int(params["capture_percent"]), params["capture_days"]
    if days is None:
        return None
    usd = 1e6 * percent / 100 * _CAPTURED_GB * prices.s3_gb_month * int(days) / _DAYS_A_MONTH
    return (
        f"it keeps {percent} % of its requests for {days} days in S3, about ${usd:.2f} per million requests "
        "of 100 kB"
    )


def streamed(params: Params, size: int) -> str | None:
    """Say which fine-tuning reads its photos from S3 as it goes; None where the disks of its instances hold them.

    Args:
        params: Params of the run.
        size: Bytes of the photos.
    """
    if params["strategy"] != Strategy.FINETUNE:
        return None
    train, test = (TRAIN_SHARE + VALID_SHARE) * size, (VALID_SHARE + TEST_SHARE) * size
    jobs = [(params["tune_instance_type"], train)]
    if params["train_on"] == "sagemaker":
        jobs.append((params["train_instance_type"], train + test))
    names = [
        machine
        for machine, inputs in jobs
        if in_place(Compute(machine), [Channel("photos", "s3://", bytes=round(inputs), prefix="s3://")])[
            0
        ].mode
        is Mode.FAST_FILE
    ]
    return (
        f"the photos do not fit on the disk of {' and '.join(dict.fromkeys(names))}: fine-tuning reads them from S3 as "
        "it goes (FastFile)"
        if names
        else None
    )


def note(
    prices: Prices,
    steps: Sequence[Step],
    hourly: float | None,
    capture: str | None = None,
    streaming: str | None = None,
) -> str:
    """State the sources of the figures, and what they leave out.

    Args:
        prices: Prices that the estimate used.
        steps: The steps that were estimated.
        hourly: USD per hour of the endpoint; None if unknown.
        capture: See `captured`.
        streaming: See `streamed`.
    """
    unpriced = ", ".join(sorted({step.instance_type for step in steps if step.usd is None}))
    endpoint = "an unknown price" if hourly is None else f"${hourly:.3f}"
    return (
        f"estimate, prices of {prices.as_of} in {prices.region}, rates assumed where no job measured them"
        + (f"; without {unpriced}, whose price is unknown" if unpriced else "")
        + f"; the endpoint then costs {endpoint} per hour until it is taken down"
        + (f"; {capture}" if capture else "")
        + (f"; {streaming}" if streaming else "")
    )


def unread_photos(params: Params, photos: int, settings: Settings, s3: Client) -> int:
    """Return the photos that `upload` will read: of few, all of them for want of a better answer."""
    if photos < machines.MANY_PHOTOS or not sources.is_prefix(params["data"]):
        return photos
    from model_code.data.versions.make import Options

    options = Options(force=bool(params["force"]))
    return Preparation(s3, settings, params["dataset_name"], params["data"], options).unread()


def requests_usd(params: Params, photos: int, unread: int, prices: Prices) -> float:
    """Return the price of the requests with which S3 gives photos to `upload`, and takes shards and thumbnails.

    One GET a photo, one LIST a thousand, and two PUTs a shard: the shard and the ZIP of its thumbnails. A job has
    SageMaker bring every photo below the prefix, also those that were read before.
    """
    if not params["data"].startswith("s3://"):
        reads = listings = 0
    else:
        reads = unread if params[machines.PREPARING] == machines.WORKER else photos
        listings = -(-photos // _LISTED_AT_ONCE)
    writes = 2 * -(-unread // _PHOTOS_A_SHARD)
    return round(reads * prices.s3_get + (listings + writes) * prices.s3_put, 4)


def estimate(
    params: Params, photos: int, prices: Prices, measured: Sequence[Rate] = (), unread: int = 0
) -> list[Step]:
    """Estimate the paid steps of a run over `photos` photos: seconds = start-up + work / (rate x instances).

    Instances that are kept warm are counted as if no later job used them.

    Args:
        params: Params of the run.
        photos: Number of photos in the data set.
        prices: Prices in USD, and the assumed rates.
        measured: Rates that jobs recorded; without one, the assumption of prices.toml counts.
        unread: Photos of the data set that no upload has read.
    """
    seconds = _speed(params["architecture"], prices, measured)
    recipe = Recipe.of(params)
    train, valid, test = (photos * share for share in (TRAIN_SHARE, VALID_SHARE, TEST_SHARE))
    epochs, views = int(hyperparameters.resolve(recipe.fixed)["epochs"]), int(params["views"])
    # Rates are per training photo and include judging the validation split; an epoch draws one view of each photo.
    trial = epochs * train
    # The recipe is fitted twice: on train, for the evaluation, and on train + valid, for the endpoint.
    final = epochs * (train + train + valid)
    spot, idle = bool(params["spot"]), float(params["keep_alive"])
    tuning, training = params["tune_instance_type"], params["train_instance_type"]
    embedding, judging = params["embed_instance_type"], params["evaluate_instance_type"]
    count = int(params["train_instance_count"])
    steps = []
    preparing = params.get(machines.PREPARING, machines.WORKER)
    if preparing != machines.WORKER:
        work = photos / float(prices.assumed["brought_per_second"]) + seconds("prepare", preparing, unread)
        steps.append(_step(prices, "prepare", preparing, work))
    if recipe.strategy == "head":
        work = seconds("embed", embedding, train * views + valid + test)
        steps.append(_step(prices, "embed", embedding, work, int(params["embed_instance_count"])))
    teacher = teacher_of(params["teacher"])[0]
    if teacher:
        work = _speed(teacher, prices, measured)("embed", embedding, train + valid)
        steps.append(_step(prices, "embed_teacher", embedding, work, int(params["embed_instance_count"])))
    trials = trials_of(params["tune_strategy"], params["trials"], recipe)
    work = trials * seconds(recipe.strategy, tuning, trial)
    # A job asks its teacher once: several heads, each fitted without a part of the photos.
    asking = (hyperparameters.FOLDS - 1) * int(hyperparameters.resolve({})["epochs"]) if teacher else 0
    if params["tune_mode"] == "packed":
        work += seconds("head", tuning, asking * train)
        steps.append(_step(prices, "tune", tuning, work, spot=spot, idle=idle))
    else:
        work += trials * seconds("head", tuning, asking * train)
        pools = min(trials, int(params["parallel_trials"]))
        steps.append(_step(prices, "tune", tuning, work, spot=spot, idle=idle * pools, starts=trials))
    work = seconds(recipe.strategy, training, final) + EXPORT_SECONDS
    work += seconds("head", training, asking * (train + train + valid))
    if params["train_on"] == "ec2":
        steps.append(_step(prices, "ec2", training.removeprefix("ml."), work))
    else:
        steps.append(_step(prices, "train", training, work, count, spot=spot, idle=idle))
    steps.append(_step(prices, "evaluate", judging, seconds("evaluate", judging, test)))
    return steps


def check_time(steps: Sequence[Step], max_job_hours: float) -> None:
    """Refuse a run whose jobs would be stopped before they are done.

    Prepare and embed are exempt: they keep every shard that they finished, and have limits of their own.

    Raises:
        TooLong: A job's work takes longer than `max_job_hours`, or than AWS lets it.
    """
    for step in steps:
        most = _LONGEST_HOURS.get(step.step, LONGEST_HOURS)
        limit, hours = min(max_job_hours, most), step.job_seconds / 3600
        if step.step not in _GO_ON and hours > limit:
            raise TooLong(
                f"{step.step} on {step.instance_count} x {step.instance_type} needs about {hours:.1f} h in one job, "
                f"which is stopped after {limit:g} h: raise max_job_hours (it is {max_job_hours:g}, AWS takes up to "
                f"{most}), or choose faster or more machines, fewer epochs, or tune_mode=job"
            )


def check_budget(total: float, budget: float | None, steps: Sequence[Step]) -> None:
    """Refuse a run over budget.

    Raises:
        OverBudget: `total` is above `budget`.
        PriceError: A price is missing.
    """
    if budget is None:
        return
    for step in steps:
        if step.usd is None:
            raise PriceError(f"budget_usd={budget} cannot be held to: {no_price(step.instance_type)}")
    if total <= float(budget):
        return
    largest = max(steps, key=lambda step: step.usd or 0.0)
    raise OverBudget(
        f"the run would cost about ${total:.2f}, over budget_usd={budget}; the most expensive step "
        f"is {largest.step} on {largest.instance_count} x {largest.instance_type} (${largest.usd:.2f}): raise the "
        "budget, or choose fewer trials, tune_mode=packed or a smaller instance"
    )


def _speed(architecture: str, prices: Prices, measured: Sequence[Rate]) -> Callable[[str, str, float], float]:
    """Return the seconds that an instance type needs for an amount of a kind of work, as a function of the three."""
    known = {
        (rate.work, rate.instance_type): rate.photos_per_second
        for rate in measured
        if rate.architecture == architecture
    }

    def seconds(work: str, machine: str, amount: float) -> float:
        return amount / (known.get((work, machine)) or prices.assumed_rate(work, machine))

    return seconds


def _step(
    prices: Prices,
    step: str,
    instance_type: str,
    work: float,
    machines: int = 1,
    *,
    spot: bool = False,
    idle: float = 0.0,
    starts: int = 1,
) -> Step:
    """Price a step of `work` instance-seconds, started `starts` times, with `idle` warm seconds after it."""
    seconds = starts * float(prices.assumed["startup_seconds"]) + work / machines + idle
    usd = prices.usd(instance_type, seconds, machines, spot)
    return Step(step, instance_type, machines, round(seconds, 1), round(work / machines / starts, 1), usd)
