"""Disks that hold the inputs that SageMaker copies to them."""

from __future__ import annotations

from dataclasses import replace

import boto3
import pytest

from ml_pipeline.dataset.version import DatasetVersion, training_channels
from ml_pipeline.requests.disks import disk_gb, has_own, own_gb
from ml_pipeline.requests.job import Channel, Compute, DataType, Distribution, Mode, disk_of, in_place
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


def of_shards(gigabytes: float) -> Channel:
    return replace(channel(gigabytes), prefix="s3://b/shards/")


@pytest.mark.parametrize(
    ("machine", "gigabytes", "mode", "disk"),
    [
        ("ml.m5.xlarge", 10_000, Mode.FILE, 11_020),
        ("ml.m5.xlarge", 20_000, Mode.FAST_FILE, 91),
        ("ml.g4dn.xlarge", 95, Mode.FILE, 125),
        ("ml.g4dn.xlarge", 96, Mode.FAST_FILE, 91),
        ("ml.m5.xlarge, ml.g4dn.xlarge", 96, Mode.FAST_FILE, 91),
        ("ml.p5.48xlarge", 20_000, Mode.FILE, 22_020),
        ("ml.r5d.large", 1000, Mode.FAST_FILE, 75),
    ],
)
def test_photos_that_fit_on_no_disk_are_read_in_place_by_training(
    machine: str, gigabytes: float, mode: Mode, disk: int
) -> None:
    compute, others = Compute(machine), Channel("dataset", "s3://b/m")
    photos, dataset = in_place(compute, [of_shards(gigabytes), others])
    assert (photos.mode, dataset) == (mode, others)
    assert disk_of(compute, [photos, dataset]) == disk
    given = photos.training_input()
    assert given["InputMode"] == mode.value
    # AWS mounts prefixes, and no manifests.
    source = given["DataSource"]["S3DataSource"]
    found = ("S3Prefix", "s3://b/shards/") if mode is Mode.FAST_FILE else ("ManifestFile", "s3://b/photos")
    assert (source["S3DataType"], source["S3Uri"]) == found


def test_instances_that_share_shards_hold_more_of_them() -> None:
    shared = replace(of_shards(200), distribution=Distribution.SHARDED)
    modes = [in_place(Compute("ml.g4dn.xlarge", count), [shared])[0].mode for count in (2, 4)]
    assert modes == [Mode.FAST_FILE, Mode.FILE]


def test_sizes_of_embeddings_are_bounds_and_refuse_no_disk_of_an_instance() -> None:
    assert in_place(Compute("ml.g4dn.xlarge"), [channel(1000)]) == [channel(1000)]
    assert disk_of(Compute("ml.g4dn.xlarge"), [channel(1000)]) == 125


def test_every_machine_with_disks_of_its_own_that_trains_has_a_size_or_counts_as_ebs() -> None:
    types = boto3.client("sagemaker", "us-east-1").meta.service_model.shape_for("TrainingInstanceType").enum
    own = {name for name in types if has_own(name)}
    unknown = {name for name in own if own_gb(name) is None}
    assert {name.partition(".")[2].partition(".")[0] for name in unknown} <= {
        "g7", "g7e", "p6-b300", "p6e-gb200", "trn2",
    }  # fmt: skip
    assert all(own_gb(name) is None for name in set(types) - own)


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
