"""Findings of a look: what is written is read, and what cannot be trusted is forgotten."""

from __future__ import annotations

import gzip
import io

import pytest

from model_code.data import photos
from model_code.data.photos import PhotoError
from model_code.data.records import Photo, Rejected
from model_code.data.versions import looks
from model_code.data.versions.columns import Findings
from tests.model_code.data import looks_files
from tests.model_code.photo_files import TWO_HALVES

FOUND: dict[str, tuple[str, Photo | Rejected]] = {
    "cat/1.jpg": ("10:1:2", Photo("cat/1.jpg", "cat", "ab" * 32, 5, 10, "jpg")),
    "cat/caf\udce9.jpg": ("10:1:3", Photo("cat/caf\udce9.jpg", "cat", "cd" * 32, None, 10, "png")),
    "dog/2.jpg": ("0:1:4", Rejected("dog/2.jpg", "empty file")),
}


def test_what_is_written_is_read() -> None:
    assert looks_files.from_bytes(looks_files.to_bytes(FOUND)) == FOUND
    assert looks_files.to_bytes(FOUND) == looks_files.to_bytes(dict(FOUND))


def test_what_is_added_is_read_after_what_was_there() -> None:
    more: dict[str, tuple[str, Photo | Rejected]] = {
        'cat/"new"\n.jpg': ("1:2:3", Photo('cat/"new"\n.jpg', "cat", "ef" * 32, 7, 10, "jpg")),
        "cat/1.jpg": ("10:1:9", Rejected("cat/1.jpg", "empty file")),
    }
    columns, file = Findings.of(more), io.BytesIO()
    looks.extend(file, io.BytesIO(looks_files.to_bytes(FOUND)), columns, range(2))
    assert looks_files.from_bytes(file.getvalue()) == FOUND | more
    assert looks_files.from_bytes(file.getvalue()[:-9]) == {}


def test_findings_of_other_rules_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    written = looks_files.to_bytes(FOUND)
    monkeypatch.setattr(looks, "_CODE", 99)
    assert looks_files.from_bytes(written) == {}


@pytest.mark.parametrize("readable", [True, False])
def test_heic_photos_are_read_again_where_a_decoder_came(
    readable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "reads_heif", lambda: False)
    with pytest.raises(PhotoError) as refused:
        photos.decode(TWO_HALVES.read_bytes())
    left_out = {"dog/3.heic": ("9:1:5", Rejected("dog/3.heic", str(refused.value)))}
    monkeypatch.setattr(looks, "reads_heif", lambda: readable)
    found = looks_files.from_bytes(looks_files.to_bytes(FOUND | left_out))
    assert found == (FOUND if readable else FOUND | left_out)


@pytest.mark.parametrize(
    "data",
    [b"", b"no gzip", gzip.compress(b"{}\n[]"), looks_files.to_bytes(FOUND)[:-20]],
    ids=["empty", "no gzip", "no records", "cut off"],
)
def test_damaged_findings_are_forgotten(data: bytes) -> None:
    assert looks_files.from_bytes(data) == {}
