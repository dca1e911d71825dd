"""Every kind of file has a defined outcome: pixels, or a PhotoError with a reason."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from model_code.data import photos
from model_code.data.photos import PhotoError, PhotoReason
from tests.model_code.photo_files import encoded, photo, picture


def close(one: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    return one.shape == other.shape and float(np.abs(one.astype(int) - other.astype(int)).mean()) <= tolerance


def test_jpeg_gives_the_pixels_that_pillow_gives() -> None:
    data = photo(1, 200, 120)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(photos.decode(data), expected)


def test_jpeg_without_the_fast_codec_gives_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = photo(1, 200, 120)
    fast = photos.decode(data)
    monkeypatch.setattr(photos, "simplejpeg", None)
    assert np.array_equal(photos.decode(data), fast)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_other_formats(kind: str) -> None:
    image = picture(2)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert close(
        photos.decode(encoded(image, kind, **options)), np.asarray(image), 12 if kind == "GIF" else 4
    )
    assert photos.sniff(encoded(image, kind)[:16]) == kind


def test_greyscale_becomes_three_equal_channels() -> None:
    pixels = photos.decode(encoded(picture(3).convert("L")))
    assert pixels.shape == (48, 64, 3)
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_cmyk_is_converted() -> None:
    image = picture(4)
    assert close(photos.decode(encoded(image.convert("CMYK"), quality=95)), np.asarray(image), 6)


def test_transparency_lies_on_white() -> None:
    image = picture(5).convert("RGBA")
    image.putalpha(0)
    assert photos.decode(encoded(image, "PNG")).min() == 255


def test_palette_with_transparency_lies_on_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    pixels = photos.decode(encoded(image, "PNG", transparency=0))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[4, 4].tolist() == [0, 0, 255]


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = photos.decode(encoded(Image.fromarray(ramp), "PNG"))
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert 126 <= pixels[32, 0, 0] <= 129
    assert pixels[-1, -1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(kind: str, orientation: int) -> None:
    image = picture(6, 64, 40)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, kind, exif=exif)
    from PIL import ImageOps

    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    pixels = photos.decode(data)
    assert pixels.shape == ((64, 40, 3) if orientation >= 5 else (40, 64, 3))
    assert np.array_equal(pixels, expected)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert photos.decode(data)[8, 8].tolist() == [255, 0, 0]


def test_scaled_decoding_keeps_the_shorter_side_large_enough() -> None:
    data = photo(7, 1600, 1200)
    small = photos.decode(data, min_side=224)
    assert small.shape == (300, 400, 3)
    full = Image.fromarray(photos.decode(data)).resize((400, 300), Image.Resampling.BOX)
    assert close(small, np.asarray(full), 2)


def png_header(width: int, height: int) -> bytes:
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + body
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    )  # fmt: skip


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", PhotoReason.EMPTY, id="zero-byte"),
        pytest.param(b"hello, I am a text file", PhotoReason.NOT_A_PHOTO, id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", PhotoReason.NOT_A_PHOTO, id="svg"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0", PhotoReason.NOT_A_PHOTO, id="postscript"),
        pytest.param(HEIC, PhotoReason.NOT_A_PHOTO, id="heic"),
        pytest.param(photo(8)[:900], PhotoReason.DAMAGED, id="truncated jpeg"),
        pytest.param(photo(8)[:20], PhotoReason.DAMAGED, id="jpeg header only"),
        pytest.param(encoded(picture(8), "PNG")[:400], PhotoReason.DAMAGED, id="truncated png"),
        pytest.param(encoded(picture(8), "WEBP")[:100], PhotoReason.DAMAGED, id="truncated webp"),
        pytest.param(png_header(50_000, 50_000), PhotoReason.TOO_LARGE, id="decompression bomb"),
        pytest.param(png_header(10_000, 9_500), PhotoReason.TOO_LARGE, id="just too large"),
        pytest.param(png_header(64, 64), PhotoReason.DAMAGED, id="png with too little data"),
        pytest.param(
            encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"), PhotoReason.UNSUPPORTED, id="float tiff"
        ),
        pytest.param(photo(8) + b"\xff\xda" * 300, PhotoReason.UNSUPPORTED, id="jpeg of many scans"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_says_why(data: bytes, reason: PhotoReason) -> None:
    for read in (photos.decode, photos.perceptual_hash):
        with pytest.raises(PhotoError) as caught:
            read(data)
        assert caught.value.reason is reason
        assert "\n" not in str(caught.value)


def test_heic_names_the_fix() -> None:
    with pytest.raises(PhotoError, match="convert it to JPEG"):
        photos.decode(HEIC)


def test_the_pixel_limit_can_be_lowered() -> None:
    with pytest.raises(PhotoError, match="resize it"):
        photos.decode(photo(9), max_pixels=1000)


@pytest.mark.parametrize("seed", range(40))
def test_hostile_bytes_never_raise_anything_else(seed: int) -> None:
    numbers = np.random.default_rng(seed)
    kind = ["JPEG", "PNG", "WEBP", "GIF", "TIFF"][seed % 5]
    data = bytearray(encoded(picture(seed), kind))
    for position in numbers.integers(0, len(data), 30):
        data[position] = numbers.integers(256)
    try:
        pixels = photos.decode(bytes(data), max_pixels=1_000_000)
    except PhotoError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3


def test_size_is_read_from_the_header() -> None:
    assert photos.size(photo(1, 120, 80)) == (80, 120)
    assert photos.size(encoded(picture(1, 30, 20), "PNG")) == (20, 30)


def bits(one: int | None, other: int | None) -> int:
    assert one is not None
    assert other is not None
    return (one ^ other).bit_count()


def test_perceptual_hash_survives_what_copies_go_through() -> None:
    for seed in range(5):
        image = picture(seed, 240, 200)
        own = photos.perceptual_hash(encoded(image, quality=95))
        assert bits(own, photos.perceptual_hash(encoded(image, quality=40))) <= 8
        assert bits(own, photos.perceptual_hash(encoded(image.resize((120, 100))))) <= 8
        assert bits(own, photos.perceptual_hash(encoded(image, "PNG"))) <= 8
        assert bits(own, photos.perceptual_hash(photo(seed + 100))) > 12


def test_a_picture_without_contrast_has_no_hash() -> None:
    assert photos.perceptual_hash(encoded(Image.new("RGB", (64, 64), "grey"))) is None
