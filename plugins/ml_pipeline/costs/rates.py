"""Photos per second that jobs measured, and the price of a million photos on each instance type."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.costs.prices import Prices
from ml_pipeline.requests.types import ComparedMachine
from ml_pipeline.settings import Settings

FORMULA = "usd_per_million_photos = usd_per_hour / 3600 / photos_per_second x 1,000,000"
AWS, THIS_MACHINE = "aws", "this machine"
_LINE = re.compile(r"(?:^|\s)photos_per_second=([0-9.]+)")


@dataclass(frozen=True)
class Rate:
    """The rate that one job measured, per instance.

    Attributes:
        work: "embed", "head" or "finetune".
        where: AWS, or THIS_MACHINE for local_aws, where the instance type does not matter.
    """

    work: str
    architecture: str
    instance_type: str
    photos_per_second: float
    where: str
    job_name: str


def in_log(lines: Iterable[str]) -> float | None:
    """Return the last `photos_per_second=` of a job's log, or None."""
    found = [match[1] for line in lines if (match := _LINE.search(line))]
    return float(found[-1]) if found else None


def record(s3: Client, settings: Settings, rate: Rate) -> None:
    """Store a rate; the newest of the same work, architecture and instance type counts."""
    if rate.photos_per_second > 0:
        key = f"{rate.work}-{rate.architecture}-{rate.instance_type}.json"
        objects.write_json(s3, _folder(settings, rate.where) + key, asdict(rate))


def load(s3: Client, settings: Settings) -> list[Rate]:
    """Read the rates that were measured where this pipeline runs."""
    folder = _folder(settings, place(settings))
    return [Rate(**objects.read_json(s3, folder + key)) for key in objects.keys(s3, folder)]


def place(settings: Settings) -> str:
    """Return where jobs run: AWS or THIS_MACHINE."""
    return THIS_MACHINE if settings.local else AWS


def comparison(rates: Iterable[Rate], prices: Prices, architecture: str) -> list[ComparedMachine]:
    """Make one row per instance type and kind of work, cheapest per photo first; None where there is no rate."""
    measured = {(rate.instance_type, rate.work): rate for rate in rates if rate.architecture == architecture}
    rows: list[ComparedMachine] = []
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
                "measured": rate.where if rate else "not measured",
            }
        )
    return sorted(rows, key=_by_price)


def lines(table: Iterable[ComparedMachine]) -> list[str]:
    """Return a text table of the machines that jobs measured."""
    rows = [row for row in table if row["photos_per_second"] is not None]
    return [f"{'machine':<16} {'work':<9} {'photos/s':>9} {'$/million':>10}  measured"] * bool(rows) + [
        f"{row['instance_type']:<16} {row['work']:<9} {row['photos_per_second']:9.1f} "
        f"{row['usd_per_million_photos']:10.2f}  {row['measured']}"
        for row in rows
    ]


def usd_per_million(usd_per_hour: float, photos_per_second: float | None) -> float | None:
    """Apply FORMULA; None without a rate."""
    if not photos_per_second:
        return None
    return round(usd_per_hour / 3600 / photos_per_second * 1_000_000, 4)


def _by_price(row: ComparedMachine) -> tuple[bool, float, str]:
    usd = row["usd_per_million_photos"]
    return (usd is None, usd or 0.0, row["instance_type"])


def _folder(settings: Settings, where: str) -> str:
    return settings.s3(f"rates/{where.replace(' ', '-')}/")
