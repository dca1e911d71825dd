"""The one source of container image URIs: images.toml, by region and instance type."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from ml_pipeline.requests.types import Document
from ml_pipeline.settings import Settings

TABLE = Path(__file__).with_name("images.toml")

# First letters of the instance families that carry an NVIDIA GPU.
_GPU_FAMILIES = ("g", "p")


@cache
def table() -> Document:
    """Return the parsed images.toml."""
    return tomllib.loads(TABLE.read_text())


def training_image(settings: Settings, instance_type: str) -> str:
    """Return the image of training, tuning and processing jobs on `instance_type`."""
    return settings.training_image or _uri(settings, "training", instance_type)


def serving_image(settings: Settings, instance_type: str) -> str:
    """Return the image of endpoints and transform jobs on `instance_type`; it is in your own account."""
    return settings.serving_image or _uri(settings, "serving", instance_type)


def has_gpu(instance_type: str) -> bool:
    """Return True if `instance_type` ("ml.g4dn.xlarge" or "g4dn.xlarge") has a GPU that the PyTorch image can use."""
    return instance_type.removeprefix("ml.").startswith(_GPU_FAMILIES)


def _uri(settings: Settings, name: str, instance_type: str) -> str:
    entry = table()["images"][name]
    tag = entry["tags"]["gpu" if has_gpu(instance_type) else "cpu"]
    # arn:<partition>:iam::<account>:role/...
    account = settings.role_arn.split(":")[4]
    if not entry.get("own_account"):
        accounts = table()["accounts"]
        account = accounts.get(settings.region, accounts["default"])
    domain = "amazonaws.com.cn" if settings.region.startswith("cn-") else "amazonaws.com"
    return f"{account}.dkr.ecr.{settings.region}.{domain}/{entry['repository']}:{tag}"
