"""Names and media types of photos; the bytes are in test_photos.py."""

from __future__ import annotations

import pytest

from model_code.data import limits


@pytest.mark.parametrize("name", ["a.jpg", "A.JPG", "x.jfif", "y.avif", "deep/er/z.HEIC", "w.tiff", "v.jpe"])
def test_endings_of_photos(name: str) -> None:
    assert limits.has_photo_ending(name)


@pytest.mark.parametrize("name", ["a.txt", "jpg", "folder.jpg/readme", "labels.csv", "x.jpg.bak"])
def test_endings_of_other_files(name: str) -> None:
    assert not limits.has_photo_ending(name)


def test_names_without_an_ending() -> None:
    assert limits.has_no_ending("cat/8f3a99")
    assert not limits.has_no_ending("cat/8f3a99.jpg")
    assert not limits.has_no_ending("cat.d/.hidden")


def test_media_types_that_clients_send_are_known() -> None:
    assert {"image/jpg", "image/gif", "image/tiff", "application/x-image"} <= limits.MEDIA_TYPES


def test_a_heic_is_no_avif() -> None:
    assert limits.sniff(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == "HEIF"
    assert limits.sniff(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic") == "HEIF"
    assert limits.sniff(b"\0\0\0\x18ftypmif1\0\0\0\0avifmif1") == "AVIF"
