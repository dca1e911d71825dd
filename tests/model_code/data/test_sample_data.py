"""Photos to start with: fetched safely, or drawn the same everywhere."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from model_code.data import sample_data, source
from model_code.data import scan as dataset
from model_code.data.splits import assign
from tests.model_code.photo_files import photo
from tests.web_server import sends, web_server


def archive(files: dict[str, bytes], link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    return buffer.getvalue()


GOOD = {
    "imagewoof2-160/train/n02086240/a.JPEG": photo(1),
    "imagewoof2-160/val/n02086240/b.JPEG": photo(2),
    "imagewoof2-160/train/n02115641/c.JPEG": photo(3),
    "imagewoof2-160/noisy_imagewoof.csv": b"x",
}


def test_imagewoof_becomes_a_folder_per_breed(tmp_path: Path) -> None:
    body = archive(GOOD)
    said: list[tuple[int, int]] = []
    with web_server({"/w.tgz": sends(body)}) as address:
        folder = sample_data.fetch_imagewoof(
            tmp_path / "data" / "imagewoof2-160",
            f"{address}/w.tgz",
            f"sha256:{hashlib.sha256(body).hexdigest()}",
            lambda done, total: said.append((done, total)),
        )
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert found == ["Shih-Tzu/a.JPEG", "Shih-Tzu/b.JPEG", "dingo/c.JPEG"]
    assert [path.name for path in folder.parent.iterdir()] == ["imagewoof2-160"]
    assert said[-1] == (len(body), len(body))


@pytest.mark.parametrize(
    ("body", "checksum", "message"),
    [
        (archive(GOOD), sample_data.IMAGEWOOF_CHECKSUM, "checksum"),
        (b"<html>blocked by a proxy</html>", None, "not a readable tgz"),
        (archive(GOOD)[:-400], None, "not a readable tgz"),
        (archive({"readme.txt": b"x"}), None, "no photos"),
    ],
    # gzip writes the time into the bytes: as names they would differ between two test processes.
    ids=["other checksum", "a page", "cut short", "no photos"],
)
def test_a_wrong_archive_leaves_nothing(
    tmp_path: Path, body: bytes, checksum: str | None, message: str
) -> None:
    with web_server({"/w.tgz": sends(body)}) as address, pytest.raises(sample_data.FetchError, match=message):
        sample_data.fetch_imagewoof(tmp_path / "data", f"{address}/w.tgz", checksum)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    evil = {
        **GOOD,
        "x/train/../../evil.jpg": b"evil",
        "x/train/n1/.hidden": b"x",
        "/train/abs/evil.jpg": photo(4),
    }
    with web_server({"/w.tgz": sends(archive(evil, link="x/train/n2/link.jpg"))}) as address:
        sample_data.fetch_imagewoof(tmp_path / "data", f"{address}/w.tgz", None)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"data/Shih-Tzu/a.JPEG", "data/Shih-Tzu/b.JPEG", "data/dingo/c.JPEG", "data/abs/evil.jpg"}


def test_drawn_photos_make_a_data_set(tmp_path: Path) -> None:
    folder = sample_data.draw(tmp_path / "one", photos=10)
    assert set(dataset.preflight(folder).counts.values()) == {10}
    photos, rejected = dataset.scan(source.Folder(folder))
    assert rejected == []
    assert len(assign(photos, {})[0]) == 80


def test_drawing_is_the_same_every_time(tmp_path: Path) -> None:
    def digests(folder: Path) -> list[str]:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.jpg"))]

    one, two = (sample_data.draw(tmp_path / name, photos=2, classes=3) for name in ("one", "two"))
    assert digests(one) == digests(two)
    assert len(set(digests(one))) == 6
    assert digests(sample_data.draw(tmp_path / "three", photos=2, classes=3, seed=1)) != digests(one)
