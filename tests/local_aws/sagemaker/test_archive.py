"""Archives: packed and unpacked without leaving a folder, whatever they hold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from local_aws.sagemaker import archive
from local_aws.sagemaker.s3_data import DataError
from local_aws.sagemaker.trees import DEEPEST, Tree
from tests.local_aws.archives import Member, member, through_a_long_path, write

OUTSIDE: dict[str, Callable[[Path], list[Member]]] = {
    "parent": lambda out: [member("../slipped", content=b"x")],
    "parent inside": lambda out: [member("a/../../slipped", content=b"x")],
    "through a link": lambda out: [
        member("link", tarfile.SYMTYPE, str(out)),
        member("link/slipped", content=b"x"),
    ],
    "relative link": lambda out: [member("a/link", tarfile.SYMTYPE, "../../slipped")],
    "hard link": lambda out: [member("link", tarfile.LNKTYPE, "../secret")],
    "hard link to a link": lambda out: [
        member("link", tarfile.SYMTYPE, str(out / "secret")),
        member("copy", tarfile.LNKTYPE, "link"),
    ],
    "device": lambda out: [member("null", tarfile.CHRTYPE)],
    "pipe": lambda out: [member("pipe", tarfile.FIFOTYPE)],
    "CVE-2025-4517": through_a_long_path,
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_nothing_is_written_or_read_outside(tmp_path: Path, case: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (tmp_path / "secret").write_text("secret")
    before = sorted(tmp_path.rglob("*"))
    packed = write(tmp_path / "x.tar.gz", *OUTSIDE[case](outside))
    with pytest.raises(DataError):
        archive.unpack(packed, tmp_path / "in")
    left = [
        path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "in") and path != packed
    ]
    assert sorted(left) == before
    assert not any(path.read_bytes() == b"secret" for path in (tmp_path / "in").rglob("*") if path.is_file())


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_files_folders_links_and_modes_are_restored(tmp_path: Path, mode: str) -> None:
    program, _ = executable = member("./bin/run", content=b"#!/bin/sh")
    program.mode = 0o4777
    packed = write(
        tmp_path / "x",
        member("empty", tarfile.DIRTYPE),
        member("latest", tarfile.SYMTYPE, "versions/1"),
        executable,
        member("/versions/1", content=b"one"),
        member("copy", tarfile.LNKTYPE, "versions/1"),
        mode=mode,
    )
    archive.unpack(packed, tmp_path / "in")
    assert (tmp_path / "in/empty").is_dir()
    assert (tmp_path / "in/latest").read_bytes() == (tmp_path / "in/copy").read_bytes() == b"one"
    assert (tmp_path / "in/bin/run").stat().st_mode & 0o7777 == 0o755


def test_limits_of_entries_size_and_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = write(tmp_path / "x.tar.gz", *(member(str(number), content=b"12345678") for number in range(4)))
    monkeypatch.setattr(archive, "MOST_ENTRIES", 3)
    with pytest.raises(DataError, match="more than 3 entries"):
        archive.unpack(packed, tmp_path / "in")
    monkeypatch.undo()
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(archive, "SPARE_BYTES", free - 2**20)
    big = member("big", content=b"\0" * 2**20)
    links = [member(f"link{number}", tarfile.LNKTYPE, "big") for number in range(9)]
    with pytest.raises(DataError, match="does not fit"):
        archive.unpack(write(tmp_path / "y.tar.gz", big, *links), tmp_path / "in")
    monkeypatch.undo()
    header = tarfile.TarInfo("x")
    header.pax_headers = {"comment": "x" * (2 * archive.LARGEST_HEADER)}
    with pytest.raises(DataError, match="header is too large"):
        archive.unpack(write(tmp_path / "z.tar.gz", (header, b"")), tmp_path / "in")


def test_a_damaged_archive_says_so(tmp_path: Path) -> None:
    packed = write(tmp_path / "x.tar.gz", member("a", content=os.urandom(100_000)))
    packed.write_bytes(packed.read_bytes()[:50_000])
    with pytest.raises(DataError, match=r"x\.tar\.gz cannot be unpacked"):
        archive.unpack(packed, tmp_path / "in")


def test_links_of_a_job_are_packed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "ml"
    (root / "model").mkdir(parents=True)
    (root / "model/real").write_text("real")
    (root / "model/link").symlink_to(tmp_path / "secret")
    os.mkfifo(root / "model/pipe")
    archive.pack([Tree.at(root, "model")], tmp_path / "x.tar.gz")
    with tarfile.open(tmp_path / "x.tar.gz") as tar:
        assert sorted(tar.getnames()) == ["link", "real"]
        assert tar.getmember("link").issym()
    (root / "model/real").unlink()
    (root / "output").symlink_to(tmp_path)
    assert Tree.at(root, "output").is_empty()
    assert Tree.at(root, "output").read("secret", 10) == b""


def test_a_tree_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "/".join("d" * (DEEPEST + 1))).mkdir(parents=True)
    with pytest.raises(DataError, match="levels deep"):
        list(Tree.at(tmp_path, "").files())


def test_unpacking_needs_no_extraction_filter(tmp_path: Path) -> None:
    """Debian 12's Python 3.11.2 has none."""
    python = "/usr/bin/python3.11"
    if not os.path.exists(python):
        pytest.skip(f"there is no {python}")
    packed = write(tmp_path / "x.tar.gz", member("a", content=b"x"))
    script = (
        "import pathlib, sys; from local_aws.sagemaker import archive; "
        "archive.unpack(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))"
    )
    path = ":".join(entry for entry in sys.path if entry.endswith("site-packages"))
    here = str(Path(archive.__file__).parents[2])
    done = subprocess.run(
        [python, "-c", script, str(packed), str(tmp_path / "in")],
        env={"PYTHONPATH": f"{here}:{path}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "in/a").read_text() == "x"
