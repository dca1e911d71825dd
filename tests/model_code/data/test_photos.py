"""Every kind of file has a defined outcome: pixels, or a PhotoError with a reason."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from model_code.data import limits, photos
from model_code.data.photos import PhotoError, PhotoReason
from tests.model_code.photo_files import TWO_HALVES, encoded, photo, picture


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
    assert limits.sniff(encoded(image, kind)[: limits.SNIFFED_BYTES]) == kind


def test_greyscale_becomes_three_equal_channels() -> None:
    pixels = photos.decode(encoded(picture(3).convert("L")))
    assert pixels.shape == (48, 64, 3)
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_cmyk_is_converted() -> None:
    image = picture(4)
    assert close(photos.decode(encoded(image.convert("CMYK"), quality=95)), np.asarray(image), 6)


def test_transparency_is_blended_with_white() -> None:
    image = picture(5).convert("RGBA")
    image.putalpha(0)
    assert photos.decode(encoded(image, "PNG")).min() == 255


def test_palette_with_transparency_is_blended_with_white() -> None:
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


def many_scans(mode: str) -> bytes:
    """A progressive JPEG that repeats its last scan until it has more than an encoder would write."""
    data = encoded(picture(8).convert(mode), progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * limits.MAX_JPEG_SCANS + data[-2:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", PhotoReason.EMPTY, id="zero-byte"),
        pytest.param(b"hello, I am a text file", PhotoReason.NOT_A_PHOTO, id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", PhotoReason.NOT_A_PHOTO, id="svg"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0", PhotoReason.NOT_A_PHOTO, id="postscript"),
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
        pytest.param(many_scans("RGB"), PhotoReason.UNSUPPORTED, id="jpeg of many scans"),
        pytest.param(many_scans("CMYK"), PhotoReason.UNSUPPORTED, id="cmyk jpeg of many scans"),
        pytest.param(many_scans("L"), PhotoReason.UNSUPPORTED, id="grey jpeg of many scans"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_says_why(data: bytes, reason: PhotoReason) -> None:
    for read in (photos.decode, photos.perceptual_hash):
        with pytest.raises(PhotoError) as caught:
            read(data)
        assert caught.value.reason is reason
        assert "\n" not in str(caught.value)


def test_heic_names_the_fix_where_nothing_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "reads_heif", lambda: False)
    with pytest.raises(PhotoError, match="convert it to JPEG first, or install pi-heif"):
        photos.decode(TWO_HALVES.read_bytes())


def test_heic_is_read_and_stored_as_jpeg() -> None:
    data = TWO_HALVES.read_bytes()
    pixels = photos.decode(data)
    assert pixels.shape == (64, 96, 3)
    assert close(pixels[10:11, 10:11], np.array([[[220, 40, 40]]]), 4)
    assert close(pixels[10:11, 80:81], np.array([[[40, 60, 210]]]), 4)
    kept, suffix = photos.stored(data)
    assert suffix == "jpg"
    assert close(photos.decode(kept), pixels, 2)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\x0a\x00\x00", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"8BPS\0\1", "Photoshop"),
        (b"%PDF-1.7", "PDF"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'>", "SVG"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "video"),
        (b"PK\x03\x04", "archive"),
    ],
)
def test_other_formats_are_named_with_the_fix(head: bytes, name: str) -> None:
    with pytest.raises(PhotoError, match=f"{name}: convert it to JPEG or PNG first"):
        photos.decode(head)


def test_photos_are_stored_as_they_are() -> None:
    data = encoded(picture(1), "PNG")
    assert photos.stored(data) == (data, "png")


@pytest.mark.parametrize("brand", [b"mif1", b"miaf", b"avis", b"avif"])
def test_an_avif_is_known_by_any_of_its_brands(brand: bytes) -> None:
    data = encoded(picture(2), "AVIF")
    renamed = data[:8] + brand + data[12:]
    assert limits.sniff(renamed) == "AVIF"
    assert np.array_equal(photos.decode(renamed), photos.decode(data))


def segment(marker: int, payload: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload


def orientation_segment(value: int) -> bytes:
    ifd = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)
    return segment(0xE1, b"Exif\0\0" + ifd)


XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'>"


@pytest.mark.parametrize(
    "before",
    [
        segment(0xE1, XMP + b" " * 65_440 + b"</x:xmpmeta>"),
        segment(0xFE, b"\xff\xda" * 30_000),
        segment(0xE2, b"FPXR\0" + b" " * 65_000) * 3,
    ],
    ids=["xmp", "comment", "three app2"],
)
def test_exif_counts_wherever_it_stands(before: bytes) -> None:
    data = photo(6, 64, 40)
    turned = data[:20] + before + orientation_segment(6) + data[20:]
    assert photos.decode(turned).shape == (64, 40, 3)
    assert np.array_equal(photos.decode(turned), np.rot90(photos.decode(data), -1))


def test_an_orientation_in_xmp_alone_counts() -> None:
    data = photo(6, 64, 40)
    xmp = segment(0xE1, XMP + b'<rdf:Description tiff:Orientation="6"/></x:xmpmeta>')
    assert photos.decode(data[:20] + xmp + data[20:]).shape == (64, 40, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_what_follows_the_end_of_a_jpeg_is_no_part_of_it(progressive: bool) -> None:
    data = encoded(picture(3), progressive=progressive)
    video = np.random.default_rng(1).integers(0, 256, 20_000_000, np.uint8).tobytes()
    assert np.array_equal(photos.decode(data + video), photos.decode(data))


def test_scans_times_pixels_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(3, 400, 300), progressive=True)
    assert photos.decode(data).shape == (300, 400, 3)
    monkeypatch.setattr(photos, "MAX_SCANNED_PIXELS", 10 * 400 * 300 - 1)
    with pytest.raises(PhotoError, match="10 scans of 400 x 300"):
        photos.decode(data)


def test_a_reason_reads_the_same_each_time() -> None:
    flat = photo(8, 160, 120).replace(struct.pack(">HH", 120, 160), struct.pack(">HH", 0, 160), 1)
    float_tiff = encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
    double = float_tiff.replace(struct.pack("<HHII", 258, 3, 1, 32), struct.pack("<HHII", 258, 3, 1, 64))
    for data in (flat, double, b"MM\0*" + bytes(60), b"BM" + bytes(60)):
        reasons = set()
        for _ in range(2):
            with pytest.raises(PhotoError) as caught:
                photos.decode(data)
            reasons.add(str(caught.value))
        assert len(reasons) == 1
        assert " 0x" not in reasons.pop()


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


@pytest.mark.parametrize(
    ("size", "wanted"), [((800, 400), (384, 192)), ((100, 50), (100, 50)), ((4000, 10), (768, 2))]
)
def test_a_thumbnail_is_small_and_holds_nothing_of_the_file_but_pixels(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    image = Image.new("RGB", size, (200, 30, 30))
    exif = image.getexif()
    exif[0x010E] = "the street where I live"
    buffer = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(buffer, "JPEG", exif=exif, icc_profile=profile, comment=b"hello")
    small = photos.thumbnail(buffer.getvalue(), 192)
    with Image.open(io.BytesIO(small)) as shown:
        assert (shown.format, shown.size) == ("JPEG", wanted)
        assert not shown.getexif()
        assert not {"icc_profile", "comment", "exif"} & shown.info.keys()
    assert small == photos.thumbnail(buffer.getvalue(), 192)


def test_a_damaged_photo_has_no_thumbnail() -> None:
    with pytest.raises(PhotoError):
        photos.thumbnail(b"\xff\xd8\xff\xe0 no photo", 192)


@pytest.mark.parametrize("size", [(40_000, 60), (60, 40_000)])
def test_a_photo_of_any_shape_is_converted_in_small_strips(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    strips: list[int] = []
    convert = photos._rgb

    def watched(image: Image.Image, profile: bytes | None) -> Image.Image:
        strips.append(image.width * image.height)
        return convert(image, profile)

    monkeypatch.setattr(photos, "_rgb", watched)
    image = picture(1, 400, 300).resize(size).convert("P")
    assert np.array_equal(photos.decode(encoded(image, "PNG")), np.asarray(image.convert("RGB")))
    assert sum(strips) == size[0] * size[1]
    assert max(strips) <= 1 << 20


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("mode", "subsampling"), [("L", 0), ("RGB", 0), ("RGB", 2), ("CMYK", 0)])
def test_a_jpeg_too_short_for_its_pixels_is_refused_before_any_memory_is_reserved(
    mode: str, subsampling: int, progressive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.new(mode, (2048, 1024))
    smallest = encoded(image, optimize=True, progressive=progressive, subsampling=subsampling, quality=1)
    assert photos.decode(smallest).shape == (1024, 2048, 3)
    larger = smallest.replace((1024).to_bytes(2) + (2048).to_bytes(2), (9000).to_bytes(2) * 2, 1)
    for decoder in ("_decode_pillow", "simplejpeg"):
        monkeypatch.setattr(photos, decoder, None)
    with pytest.raises(PhotoError, match=r"damaged or truncated: \d+ bytes cannot hold 9000 x 9000 pixels"):
        photos.decode(larger)
