"""Disks that hold the inputs that SageMaker copies to them."""

from __future__ import annotations

import pytest

from ml_pipeline.dataset.version import DatasetVersion, training_channels
from ml_pipeline.requests.job import Channel, Compute, DataType, Distribution, disk_gb, disk_of
from model_code.data.manifest import Manifest
from tests.ml_pipeline.manifests import manifest

GB = 2**30


def channel(gigabytes: float, distribution: Distribution = Distribution.FULL) -> Channel:
    return Channel("photos", "s3://b/photos", DataType.MANIFEST, distribution, round(gigabytes * GB))


@pytest.mark.parametrize(
    ("gigabytes", "disk"),
    [(0, 30), (9, 30), (100, 130), (1000, 1120)],
)
def test_a_disk_grows_with_what_it_has_to_hold(gigabytes: float, disk: int) -> None:
    assert disk_of(Compute("ml.m5.xlarge"), [channel(gigabytes)]) == disk


def test_instances_that_share_shards_share_the_disk_too() -> None:
    four = Compute("ml.m5.xlarge", 4)
    assert disk_of(four, [channel(400, Distribution.SHARDED)]) == 130
    assert disk_of(four, [channel(400)]) == 460


def test_photos_that_fit_on_no_disk_are_refused_with_the_fix() -> None:
    with pytest.raises(ValueError, match="disk of 22548 GB, and the largest has 16384: take more instances"):
        disk_of(Compute("ml.m5.xlarge"), [channel(20_480)])
    assert disk_gb(60, 20_480 * GB / 2) < 16_384


@pytest.mark.parametrize("strategy", ["head", "finetune"])
def test_the_channels_of_a_training_know_their_size(strategy: str) -> None:
    listed: Manifest = manifest(
        "dogs", [("1" * 64, "train", 4), ("2" * 64, "valid", 4), ("3" * 64, "test", 4)]
    )
    dataset = DatasetVersion(listed, "s3://b/datasets/dogs/versions/v/manifest.json")
    found = training_channels(dataset, strategy, "s3://b/embeddings/e", None, final=True)
    sizes = {one.name: one.bytes for one in found}
    assert sizes["train"] == dataset.bytes("train") > 0
    assert sizes["valid_photos"] == dataset.bytes("valid") > 0
    assert sizes["dataset"] == 0
