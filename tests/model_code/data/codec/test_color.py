"""Embedded profiles: the same color of two cameras becomes the same numbers."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageCms

from model_code.data import photos
from tests.model_code.photo_files import encoded, picture

GREEN_P3 = (97, 197, 81)  # Display P3's numbers of sRGB (40, 200, 60)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def matrix_profile(columns: Sequence[Sequence[float]], gamma: float) -> bytes:
    """A display profile (ICC.1:2004) of three primaries, adapted to D50, and one gamma."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78 + 1)
    tags = {
        b"desc": text + bytes(-len(text) % 4),
        b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642) + fixed(1.0) + fixed(0.8249),
        **{
            name: b"XYZ \0\0\0\0" + b"".join(map(fixed, column))
            for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
        },
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = struct.pack(
        ">I4sI4s4s4s", 128 + len(table) + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ "
    )
    head += (
        struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp")
        + bytes(28)
        + fixed(0.9642)
        + fixed(1)
        + fixed(0.8249)
    )
    return head + bytes(128 - len(head)) + table + body


P3 = matrix_profile(
    ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)), gamma=2.2
)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_wide_profile_is_converted_in_every_format(kind: str) -> None:
    data = encoded(Image.new("RGB", (64, 48), GREEN_P3), kind, icc_profile=P3, quality=100)
    assert np.abs(photos.decode(data)[20, 20].astype(int) - (40, 200, 60)).max() <= 10


def test_srgb_and_useless_profiles_change_nothing() -> None:
    image = picture(3)
    plain = photos.decode(encoded(image))
    for profile in (SRGB, b"not a profile", SRGB[:200]):
        assert np.array_equal(photos.decode(encoded(image, icc_profile=profile)), plain)


def test_a_profile_in_several_segments_is_joined() -> None:
    padded = P3 + bytes(90_000)
    data = encoded(Image.new("RGB", (64, 48), GREEN_P3), icc_profile=padded)
    assert data.count(b"ICC_PROFILE\0") == 2
    assert np.abs(photos.decode(data)[20, 20].astype(int) - (40, 200, 60)).max() <= 10


def test_both_decoders_convert_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(4), icc_profile=P3)
    fast = photos.decode(data)
    monkeypatch.setattr(photos, "simplejpeg", None)
    assert np.array_equal(photos.decode(data), fast)
