"""The one source of prices: prices.toml, dated, with your own file on top. Every figure is an estimate."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_pipeline.aws.images import has_gpu
from ml_pipeline.requests import preferences
from ml_pipeline.settings import Settings

TABLE = Path(__file__).with_name("prices.toml")


class PriceError(LookupError):
    """No price list has the instance type; the message says where to add it."""


@dataclass(frozen=True)
class Prices:
    """A price list.

    Attributes:
        as_of: Date of the list.
        sagemaker, ec2: USD per hour by instance type; the first with "ml." in front.
        s3_gb_month: USD per GB and month in S3.
        s3_get, s3_put: USD per request of S3; PUT and LIST cost the same.
        assumed: Start-up seconds, spot discount, rates: see prices.toml.
    """

    as_of: str
    region: str
    sagemaker: Mapping[str, float]
    ec2: Mapping[str, float]
    s3_gb_month: float
    s3_get: float
    s3_put: float
    assumed: Mapping[str, Any]

    @classmethod
    def load(cls, settings: Settings | None = None) -> Prices:
        """Read the table, with `settings.prices_file` merged over it key by key."""
        document = tomllib.loads(TABLE.read_text())
        if settings and settings.prices_file:
            document = _overlaid(document, tomllib.loads(Path(settings.prices_file).read_text()))
        return cls(
            as_of=document["as_of"],
            region=document["region"],
            sagemaker=document["sagemaker"],
            ec2=document["ec2"],
            s3_gb_month=float(document["s3"]["gb_month"]),
            s3_get=float(document["s3"]["get_1000"]) / 1000,
            s3_put=float(document["s3"]["put_1000"]) / 1000,
            assumed=document["assumed"],
        )

    def hourly(self, instance_type: str) -> float:
        """Return USD per hour: SageMaker's price for "ml.*", EC2's otherwise; of several types, the highest.

        Raises:
            PriceError: No list has that type.
        """
        if not self._known(instance_type):
            raise PriceError(no_price(instance_type))
        return max(float(self._list(name)[name]) for name in preferences.split(instance_type))

    def usd(
        self, instance_type: str, seconds: float, instance_count: int = 1, spot: bool = False
    ) -> float | None:
        """Return price per hour x instances x seconds / 3600, less the spot discount; None if no list has the type."""
        if not self._known(instance_type):
            return None
        factor = 1.0 - float(self.assumed["spot_discount"]) if spot else 1.0
        return self.hourly(instance_type) * instance_count * seconds / 3600 * factor

    def assumed_rate(self, work: str, instance_type: str) -> float:
        """Return the assumed photos per second of `work` (prepare, embed, head, ...) on one instance."""
        if work == "prepare":
            return float(self.assumed["prepared_per_vcpu"]) * vcpus(instance_type)
        return float(self.assumed["rates"]["gpu" if has_gpu(instance_type) else "cpu"][work])

    def _known(self, instance_type: str) -> bool:
        return all(name in self._list(name) for name in preferences.split(instance_type))

    def _list(self, instance_type: str) -> Mapping[str, float]:
        return self.sagemaker if instance_type.startswith("ml.") else self.ec2


def vcpus(machine: str) -> int:
    """Return the vCPUs of an instance type by the name of its size, as AWS names those of m5, c5, g4dn and others."""
    size = machine.rpartition(".")[2]
    return {"medium": 1, "large": 2}.get(size) or 4 * int(size.removesuffix("xlarge") or 1)


def no_price(instance_type: str) -> str:
    """Say how to add an instance type that is in no list."""
    name = "sagemaker" if instance_type.startswith("ml.") else "ec2"
    return (
        f"no price for {instance_type}: put it under [{name}] in a TOML file and name that file in "
        "ML_PIPELINE_PRICES_FILE"
    )


def _overlaid(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        mine = merged.get(key)
        merged[key] = _overlaid(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return merged
