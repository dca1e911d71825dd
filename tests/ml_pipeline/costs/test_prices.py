"""The price list."""

from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.costs.prices import PriceError, Prices
from ml_pipeline.settings import Settings


def test_sagemaker_and_ec2_have_prices_of_their_own() -> None:
    prices = Prices.load()
    assert prices.hourly("ml.m5.xlarge") == 0.23
    assert prices.hourly("m5.xlarge") == 0.192
    assert prices.usd("ml.m5.xlarge", 1800, 2) == pytest.approx(0.23)
    assert prices.usd("ml.m5.xlarge", 3600, spot=True) < 0.23
    with pytest.raises(PriceError, match="ML_PIPELINE_PRICES_FILE"):
        prices.hourly("ml.p5.48xlarge")


def test_your_own_prices_lie_over_the_table(tmp_path: Any) -> None:
    mine = tmp_path / "prices.toml"
    mine.write_text('as_of = "2027-01-01"\n[sagemaker]\n"ml.m5.xlarge" = 0.5\n')
    settings = Settings("b", "arn:aws:iam::1:role/r", "us-east-1", prices_file=str(mine))
    prices = Prices.load(settings)
    assert (prices.as_of, prices.hourly("ml.m5.xlarge"), prices.hourly("ml.m5.large")) == (
        "2027-01-01",
        0.5,
        0.115,
    )
