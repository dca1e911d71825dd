"""Shards: the same photos give the same bytes, and damage is noticed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from model_code.data import shards
from model_code.data.shards import Sample, ShardError, Split

SAMPLES = [Sample(f"{n:020x}", f"class-{n % 3}", bytes([n]) * (600 + n), "jpg") for n in range(9)]


def written(
    folder: Path, name: str = "one.tar", split: Split = Split.TRAIN, samples: list[Sample] = SAMPLES
) -> Path:
    shards.write_shard(folder / name, split, samples)
    return folder / name


def test_what_goes_in_comes_out_in_order(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert list(shards.read_shard(path)) == SAMPLES
    assert shards.read_split(path) is Split.TRAIN
    assert shards.count_photos(path) == 9


def test_the_same_photos_give_the_same_bytes(tmp_path: Path) -> None:
    first = shards.write_shard(tmp_path / "one.tar", Split.TRAIN, SAMPLES)
    second = shards.write_shard(tmp_path / "two.tar", Split.TRAIN, iter(SAMPLES))
    assert first == second
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    # Written on Linux with Python 3.11: another machine must get the same name for the same photos.
    assert first.sha256 == "24bed3529028aeb9a3fc0c70206109bc9cb605ad0bb325bb2e0168706d798eb5"
    assert shards.write_shard(tmp_path / "test.tar", Split.TEST, SAMPLES).sha256 != first.sha256


def test_any_tar_reader_can_read_it(tmp_path: Path) -> None:
    with tarfile.open(written(tmp_path)) as tar:
        assert tar.getnames()[:2] == [f"{SAMPLES[0].key}.jpg", f"{SAMPLES[0].key}.cls"]
        member = tar.getmembers()[0]
        assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)


def test_class_names_may_be_any_text(tmp_path: Path) -> None:
    sample = Sample("0" * 20, "Löwchen / 獅子犬", b"x", "jpg")
    assert next(iter(shards.read_shard(written(tmp_path, samples=[sample])))) == sample


@pytest.mark.parametrize("kept", [100, 700, 1500, 4096])
def test_a_shard_cut_short_is_noticed(tmp_path: Path, kept: int) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ShardError):
        list(shards.read_shard(path))


def test_a_shard_cut_between_two_photos_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path)
    with tarfile.open(path) as tar:
        cut = tar.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ShardError, match="cut short"):
        list(shards.read_shard(path))


def test_a_damaged_header_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path)
    with tarfile.open(path) as tar:
        header = tar.getmembers()[4].offset
    damaged = bytearray(path.read_bytes())
    damaged[header + 124] ^= 1  # the size: followed blindly, it would lead into the middle of a photo
    path.write_bytes(damaged)
    with pytest.raises(ShardError, match=f"a header at byte {header} fails its checksum"):
        list(shards.read_shard(path))


def test_a_shard_holds_plain_files_only(tmp_path: Path) -> None:
    path = tmp_path / "linked.tar"
    with tarfile.open(path, "w", pax_headers={"ML_PIPELINE.split": "train"}) as tar:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(ShardError, match=r"a\.jpg is not a plain file"):
        list(shards.read_shard(path))


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("hello" * 500)
    with pytest.raises(ShardError, match="not a tar"):
        shards.read_split(tmp_path / "text.tar")
    with tarfile.open(tmp_path / "foreign.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    with pytest.raises(ShardError, match="which split"):
        shards.read_split(tmp_path / "foreign.tar")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def breaks() -> object:
        yield SAMPLES[0]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        shards.write_shard(tmp_path / "x.tar", Split.TRAIN, breaks())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_shards_in_finds_finished_shards_only(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.tar", "sub/a.tar", ".shard-x.tar", "note.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in shards.shards_in(tmp_path)] == ["b.tar", "a.tar"]


@pytest.mark.parametrize(
    ("sizes", "limit", "expected"),
    [
        ([], 10, []),
        ([3, 3, 3], 10, [range(0, 3)]),
        ([3] * 10, 10, [range(0, 3), range(3, 6), range(6, 9), range(9, 10)]),
        ([3] * 12, 18, [range(0, 6), range(6, 12)]),
        ([50, 3, 3], 10, [range(0, 1), range(1, 3)]),
    ],
)
def test_pack_fills_shards_evenly(sizes: list[int], limit: int, expected: list[range]) -> None:
    assert shards.pack(sizes, limit) == expected


def test_tar_bytes_is_what_a_photo_takes(tmp_path: Path) -> None:
    size = written(tmp_path).stat().st_size
    taken = sum(shards.tar_bytes(len(sample.data), sample.label) for sample in SAMPLES)
    assert taken < size <= taken + 2 * 10240
