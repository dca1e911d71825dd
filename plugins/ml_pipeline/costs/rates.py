"""Photos per second that jobs measured, and what a million photos cost on each machine: never typed in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ml_pipeline.aws import s3 as objects
from ml_pipeline.costs.prices import Prices
from ml_pipeline.settings import Settings

FORMULA = "usd_per_million_photos = usd_per_hour / 3600 / photos_per_second x 1,000,000"
AWS, THIS_MACHINE = "aws", "this machine"
_LINE = re.compile(r"(?:^|\s)photos_per_second=([0-9.]+)")


@dataclass(frozen=True)
class Rate:
    """What one job measured, per machine.

    Attributes:
        work: "embed", "head" or "finetune".
        where: AWS, or THIS_MACHINE for local_aws, whatever instance type the job asked for.
    """

    work: str
    architecture: str
    instance_type: str
    photos_per_second: float
    where: str
    job_name: str


def in_log(lines: Iterable[str]) -> float | None:
    """The last `photos_per_second=` of a job's log, or None."""
    found = [match[1] for line in lines if (match := _LINE.search(line))]
    return float(found[-1]) if found else None


def record(s3: Any, settings: Settings, rate: Rate) -> None:
    """Keep a rate; the newest of the same work, architecture and machine counts."""
    if rate.photos_per_second > 0:
        key = f"{rate.work}-{rate.architecture}-{rate.instance_type}.json"
        objects.write_json(s3, _folder(settings, rate.where) + key, asdict(rate))


def load(s3: Any, settings: Settings) -> list[Rate]:
    """Every rate that was measured where this pipeline runs."""
    folder = _folder(settings, place(settings))
    return [Rate(**objects.read_json(s3, folder + key)) for key in objects.keys(s3, folder)]


def place(settings: Settings) -> str:
    """Where jobs run: AWS or THIS_MACHINE."""
    return THIS_MACHINE if settings.local else AWS


def comparison(rates: Iterable[Rate], prices: Prices, architecture: str) -> list[dict[str, Any]]:
    """One row per machine and kind of work, cheapest per photo first; None where nobody measured it."""
    measured = {(rate.instance_type, rate.work): rate for rate in rates if rate.architecture == architecture}
    rows = []
    machines = [(machine, work) for machine in prices.sagemaker for work in ("embed", "finetune")]
    for instance_type, work in [*machines, *((machine, "finetune") for machine in prices.ec2)]:
        rate, hourly = measured.get((instance_type, work)), prices.hourly(instance_type)
        speed = rate.photos_per_second if rate else None
        rows.append(
            {
                "instance_type": instance_type,
                "work": work,
                "usd_per_hour": hourly,
                "photos_per_second": speed,
                "usd_per_million_photos": usd_per_million(hourly, speed),
                "measured": rate.where if rate else "nobody measured it",
            }
        )
    return sorted(rows, key=_dearness)


def usd_per_million(usd_per_hour: float, photos_per_second: float | None) -> float | None:
    """See FORMULA; None without a rate."""
    if not photos_per_second:
        return None
    return round(usd_per_hour / 3600 / photos_per_second * 1_000_000, 4)


def _dearness(row: Mapping[str, Any]) -> tuple[bool, float, str]:
    usd = row["usd_per_million_photos"]
    return (usd is None, usd or 0.0, row["instance_type"])


def _folder(settings: Settings, where: str) -> str:
    return settings.s3(f"rates/{where.replace(' ', '-')}/")
