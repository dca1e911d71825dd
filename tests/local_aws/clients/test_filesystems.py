"""s3fs (aiobotocore) and pyarrow (aws-sdk-cpp), signing every request: what pandas, Dask and Spark users write with."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.local_aws.cloud import Signing, unique

MISSING = "comes with the SageMaker SDK, which the lock has for Python 3.11"
SIZES = (0, 11, 12 * 2**20)
"""Bytes: nothing, one request, and several parts (both clients begin a multipart upload below 12 MiB)."""


@pytest.fixture
def folder(signing: Signing) -> str:
    """`<bucket>/folder`, the place of a test's objects."""
    return f"{signing.bucket()}/folder"


@pytest.fixture
def s3fs(signing: Signing) -> Any:
    module = pytest.importorskip("s3fs", reason=MISSING)
    key = signing.key
    return module.S3FileSystem(
        key=key.id, secret=key.secret, endpoint_url=signing.url, skip_instance_cache=True,
        default_block_size=5 * 2**20,
    )  # fmt: skip


def arrow_filesystem(signing: Signing, secret: str, **options: Any) -> Any:
    module = pytest.importorskip("pyarrow.fs", reason=MISSING)
    return module.S3FileSystem(
        access_key=signing.key.id, secret_key=secret, endpoint_override=signing.url, region="us-east-1",
        request_timeout=20, connect_timeout=5, **options,
    )  # fmt: skip


@pytest.fixture
def arrow(signing: Signing) -> Any:
    return arrow_filesystem(signing, signing.key.secret)


@pytest.mark.parametrize("size", SIZES)
def test_s3fs_writes_reads_lists_and_deletes(s3fs: Any, folder: str, size: int) -> None:
    data, path = os.urandom(size), f"{folder}/a b/ü+.bin"
    with s3fs.open(path, "wb") as file:
        file.write(data)
    assert s3fs.cat_file(path) == data
    assert s3fs.info(path)["size"] == size
    if size:
        assert s3fs.cat_file(path, start=3, end=9) == data[3:9]
    s3fs.copy(path, f"{folder}/copy")
    assert sorted(s3fs.find(folder)) == [path, f"{folder}/copy"]
    assert sorted(s3fs.ls(folder)) == [f"{folder}/a b", f"{folder}/copy"]
    s3fs.rm(folder, recursive=True)
    s3fs.invalidate_cache()
    assert not s3fs.exists(path)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("checked", [True, False])
def test_pyarrow_writes_reads_lists_and_deletes(
    signing: Signing, folder: str, size: int, checked: bool
) -> None:
    arrow = arrow_filesystem(signing, signing.key.secret, check_directory_existence_before_creation=checked)
    fs = pytest.importorskip("pyarrow.fs", reason=MISSING)
    data, path = os.urandom(size), f"{folder}/a b/ü+.bin"
    arrow.create_dir(f"{folder}/a b")
    with arrow.open_output_stream(path, metadata={"Content-Type": "application/x-own"}) as stream:
        stream.write(data)
    with arrow.open_input_file(path) as file:
        assert file.read() == data
        if size:
            assert file.read_at(6, 3) == data[3:9]
    arrow.copy_file(path, f"{folder}/copy")
    found = arrow.get_file_info(fs.FileSelector(folder, recursive=True))
    assert {info.path: info.size for info in found if info.is_file} == {path: size, f"{folder}/copy": size}
    arrow.move(f"{folder}/copy", f"{folder}/moved")
    arrow.delete_file(f"{folder}/moved")
    arrow.delete_dir(folder)
    assert arrow.get_file_info(path).type == fs.FileType.NotFound


def test_a_parquet_data_set_makes_the_round_trip(arrow: Any, s3fs: Any, folder: str) -> None:
    pa = pytest.importorskip("pyarrow", reason=MISSING)
    dataset = pytest.importorskip("pyarrow.dataset", reason=MISSING)
    table = pa.table({"class": ["cat", "dog"] * 50_000, "score": [number / 7 for number in range(100_000)]})
    # Without markers of folders, which s3fs hands to pyarrow as files.
    options = {"partitioning": ["class"], "partitioning_flavor": "hive", "create_dir": False}
    dataset.write_dataset(table, folder, format="parquet", filesystem=arrow, **options)
    for filesystem in (arrow, s3fs):
        read = dataset.dataset(folder, filesystem=filesystem, format="parquet", partitioning="hive")
        assert read.count_rows() == 100_000
        cats = read.to_table(filter=dataset.field("class") == "cat")
        assert cats["score"].to_pylist() == table["score"].to_pylist()[::2]
    options["existing_data_behavior"] = "delete_matching"
    dataset.write_dataset(table, folder, format="parquet", filesystem=arrow, **options)
    assert len([name for name in s3fs.find(folder) if name.endswith(".parquet")]) == 2


def test_a_wrong_secret_writes_nothing(signing: Signing, s3fs: Any, folder: str) -> None:
    wrong = arrow_filesystem(signing, "wrong")
    with (
        pytest.raises(OSError, match=r"ACCESS_DENIED|SIGNATURE|SignatureDoesNotMatch|HTTP status 403"),
        wrong.open_output_stream(f"{folder}/x") as stream,
    ):
        stream.write(b"x")
    module = pytest.importorskip("s3fs", reason=MISSING)
    other = module.S3FileSystem(key=signing.key.id, secret=unique("wrong"), endpoint_url=signing.url)
    with pytest.raises(OSError, match="signature"):
        other.pipe_file(f"{folder}/x", b"x")
    assert s3fs.find(folder) == []
