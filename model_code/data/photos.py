"""Photo bytes in, RGB pixels out: one decoder for data sets, training and the server.

Baseline and progressive JPEG go through libjpeg-turbo (simplejpeg), everything else through Pillow; where
both can read a photo they give the same pixels. Anything that cannot be read raises a `PhotoError` with a reason,
never another exception.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from model_code.data import limits
from model_code.data.codec import color, jpeg
from model_code.data.limits import MAX_JPEG_SCANS, MAX_PIXELS, MAX_SCANNED_PIXELS, SNIFFED_BYTES, sniff
from model_code.process.errors import first_line

try:
    import simplejpeg
except ImportError:  # a bare training container: Pillow reads everything, more slowly
    simplejpeg = None

Pixels = NDArray[np.uint8]

# Pillow warns about every oddity of a file. What matters here is whether it decodes, and our own limit of pixels.
warnings.filterwarnings("ignore", module="PIL")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_ORIENTATION_TAG = 0x0112
# Pixels converted at a time: each step of a conversion copies its input, and converting a big photo whole takes six
# copies of it.
_STRIP = 1 << 20
_HASH_SIDE = 32
_HASH_LOW = 8
# Below this contrast (gray levels) the signs of the low frequencies are rounding noise.
_HASH_MIN_CONTRAST = 1.0
_STORED_QUALITY = 95
_THUMBNAIL_QUALITY = 80
# A panorama's longer side, in shorter sides.
_THUMBNAIL_ASPECT = 4


class PhotoReason(StrEnum):
    """The reason that a photo cannot be used."""

    EMPTY = "empty file"
    NOT_A_PHOTO = "not a photo in a supported format"
    DAMAGED = "damaged or truncated"
    TOO_LARGE = "too large"
    UNSUPPORTED = "unsupported pixel format"


_HEIF_FIX = "HEIC: convert it to JPEG first, or install pi-heif (pip install pi-heif)"
NEEDS_HEIF = f"{PhotoReason.NOT_A_PHOTO}: {_HEIF_FIX}"
"""The reason with which a HEIC photo is left out where nothing reads it."""


class PhotoError(ValueError):
    """A photo that cannot be decoded. `reason` is the kind, `str()` the line for people."""

    def __init__(self, reason: PhotoReason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason


def kind_of(head: bytes) -> str:
    """Identify a photo by its first `limits.SNIFFED_BYTES` bytes.

    Returns:
        A name of `limits.FORMATS`.

    Raises:
        PhotoError: No format that this installation reads; the message names the fix where one is known.
    """
    if not head:
        raise PhotoError(PhotoReason.EMPTY)
    kind = sniff(head)
    if kind == "HEIF" and not reads_heif():
        raise PhotoError(PhotoReason.NOT_A_PHOTO, _HEIF_FIX)
    if kind is None:
        other = limits.foreign(head)
        raise PhotoError(
            PhotoReason.NOT_A_PHOTO, f"{other}: convert it to JPEG or PNG first" if other else ""
        )
    return kind


@cache
def reads_heif() -> bool:
    """Tell whether HEIC can be decoded here, which takes the package pi-heif."""
    try:
        import pi_heif
    except ImportError:
        return False
    pi_heif.register_heif_opener(thumbnails=False)
    return True


def decode(data: bytes, *, min_side: int = 0, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a photo as people see it: upright, first frame, in sRGB, transparency on white.

    Args:
        data: The file's bytes.
        min_side: When positive, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as the shorter side
            keeps at least this many pixels (the codec's scaled inverse DCT: faster, and a proper low-pass).
        max_pixels: Photos of more pixels are refused before any of them is decoded.

    Returns:
        RGB, uint8 [height, width, 3].

    Raises:
        PhotoError: The photo cannot be decoded.
    """
    kind = kind_of(data[:SNIFFED_BYTES])
    if kind == "JPEG":
        pixels = _decode_jpeg(data, "RGB", min_side, max_pixels)
        if pixels is not None:
            return pixels
    return _decode_pillow(data, kind, max_pixels)


def size(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width in pixels as stored (before EXIF rotation), from the header alone.

    Raises:
        PhotoError: As `decode`.
    """
    kind = kind_of(data[:SNIFFED_BYTES])
    if kind == "JPEG":
        header = _jpeg_header(data, max_pixels)
        if header is not None:
            return header.height, header.width
    with _opened(data, kind, max_pixels) as image:
        return image.height, image.width


def stored(data: bytes) -> tuple[bytes, str]:
    """Return the bytes and the suffix (without a dot) under which a photo goes into a shard.

    Files stay as they are, except HEIC: few training containers read it, so it is stored as a JPEG of high quality.

    Raises:
        PhotoError: As `decode`.
    """
    kind = kind_of(data[:SNIFFED_BYTES])
    if kind != "HEIF":
        return data, limits.SUFFIXES[kind]
    buffer = io.BytesIO()
    Image.fromarray(decode(data)).save(buffer, "JPEG", quality=_STORED_QUALITY, subsampling=0)
    return buffer.getvalue(), limits.SUFFIXES["JPEG"]


def thumbnail(data: bytes, side: int) -> bytes:
    """Encode a small copy of a photo as JPEG: its pixels in sRGB and nothing else of the file.

    Args:
        data: The file's bytes.
        side: Pixels of the shorter side, or fewer where the photo is smaller or a strip.

    Raises:
        PhotoError: As `decode`.
    """
    image = Image.fromarray(decode(data, min_side=side))
    scale = min(1.0, side / min(image.size), _THUMBNAIL_ASPECT * side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=_THUMBNAIL_QUALITY)
    return buffer.getvalue()


def perceptual_hash(data: bytes, *, max_pixels: int = MAX_PIXELS) -> int | None:
    """Return the 64-bit DCT hash (pHash) of a photo; near-duplicates differ in few bits.

    Decoding it also proves the file whole. The bits are the signs of the 8 x 8 lowest frequencies of a 32 x
    32 gray thumbnail, relative to their median (Zauner, 2010).

    Returns:
        The hash, or None for a picture without contrast, whose hash would say nothing.

    Raises:
        PhotoError: As `decode`.
    """
    gray: Pixels | None = None
    kind = kind_of(data[:SNIFFED_BYTES])
    if kind == "JPEG":
        gray = _decode_jpeg(data, "GRAY", 2 * _HASH_SIDE, max_pixels)
    if gray is None:
        image = Image.fromarray(_decode_pillow(data, kind, max_pixels)).convert("L")
    else:
        image = Image.fromarray(gray[:, :, 0])
    small = np.asarray(image.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BOX), np.float32)
    if float(small.std()) < _HASH_MIN_CONTRAST:
        return None
    low = _DCT @ small @ _DCT.T
    bits = (low > np.median(low)).reshape(-1)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _dct_rows() -> NDArray[np.float32]:
    frequency = np.arange(1, _HASH_LOW + 1)[:, None]  # the constant term only carries brightness
    position = 2 * np.arange(_HASH_SIDE)[None, :] + 1
    return np.cos(math.pi * frequency * position / (2 * _HASH_SIDE)).astype(np.float32)


_DCT = _dct_rows()


def _jpeg_header(data: bytes, max_pixels: int) -> jpeg.JpegHeader | None:
    """Read and check a JPEG's header, whichever decoder will read its pixels; None leaves it to Pillow."""
    header = jpeg.read_header(data, MAX_JPEG_SCANS)
    if header is None:
        return None
    _check_pixels(header.height, header.width, max_pixels)
    if len(data) < header.least_bytes:
        raise PhotoError(
            PhotoReason.DAMAGED, f"{len(data)} bytes cannot hold {header.width} x {header.height} pixels"
        )
    scanned = header.scans * header.height * header.width
    if header.scans > MAX_JPEG_SCANS or scanned > MAX_SCANNED_PIXELS:
        scans = f"more than {MAX_JPEG_SCANS}" if header.scans > MAX_JPEG_SCANS else str(header.scans)
        raise PhotoError(
            PhotoReason.UNSUPPORTED,
            f"a JPEG of {scans} scans of {header.width} x {header.height} pixels; save it anew",
        )
    return header


def _decode_jpeg(data: bytes, colors: str, min_side: int, max_pixels: int) -> Pixels | None:
    """Pixels by libjpeg-turbo, or None where Pillow has to decide (CMYK, gray profiles, odd files)."""
    header = _jpeg_header(data, max_pixels)
    if simplejpeg is None or header is None or header.components not in (1, 3):
        return None
    if header.components == 1 and header.profile and colors == "RGB":
        return None
    factor = scale_factor(min(header.height, header.width), min_side)
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            colors,
            min_height=-(-header.height // factor),
            min_width=-(-header.width // factor),
            strict=True,
        )
    except (ValueError, KeyError):  # KeyError: a color space it has no name for
        return None
    if header.profile and colors == "RGB":
        image = Image.fromarray(pixels)
        converted = color.to_srgb(image, header.profile)
        pixels = pixels if converted is image else np.asarray(converted)
    return _upright(pixels, _orientation(data) if header.oriented else 1)


def scale_factor(short_side: int, min_side: int) -> int:
    """Return the largest of 1, 2, 4, 8 that leaves `short_side` at least `min_side` pixels; 1 for `min_side` 0."""
    if min_side <= 0:
        return 1
    return next((f for f in (8, 4, 2) if short_side >= f * min_side), 1)


def _orientation(data: bytes) -> int:
    """EXIF orientation 1-8 of a JPEG, by Pillow's parser."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            value = image.getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation (EXIF 2.32, tag 274) to [h, w, c]."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _check_pixels(height: int, width: int, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise PhotoError(PhotoReason.DAMAGED, f"{width} x {height} pixels")
    if height * width > max_pixels:
        raise PhotoError(
            PhotoReason.TOO_LARGE,
            f"{width} x {height} is more than {max_pixels / 1e6:.0f} million pixels; resize it",
        )


def _opened(data: bytes, kind: str, max_pixels: int) -> Image.Image:
    if kind == "AVIF":
        # Pillow goes by the major brand alone, which may be that of any container (mif1, miaf).
        data = b"%savif%s" % (data[:8], data[12:])
    try:
        image = Image.open(io.BytesIO(data), formats=(kind,))
    except Image.DecompressionBombError as error:
        raise PhotoError(PhotoReason.TOO_LARGE, str(error)) from error
    except UnidentifiedImageError as error:
        if kind == "TIFF":
            raise PhotoError(
                PhotoReason.UNSUPPORTED, "a TIFF of unusual pixels; save it with 8 bits per channel"
            ) from error
        raise PhotoError(PhotoReason.DAMAGED, f"the header of the {kind} cannot be read") from error
    except Exception as error:  # Pillow's readers raise almost anything on hostile bytes
        raise PhotoError(PhotoReason.DAMAGED, first_line(error)) from error
    _check_pixels(image.height, image.width, max_pixels)
    return image


def _decode_pillow(data: bytes, kind: str, max_pixels: int) -> Pixels:
    with _opened(data, kind, max_pixels) as image:
        try:
            image.load()
            profile = image.info.get("icc_profile")
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.empty((image.height, image.width, 3), np.uint8)
            rows = max(1, _STRIP // max(1, image.width))
            for top in range(0, image.height, rows):
                bottom = min(top + rows, image.height)
                pixels[top:bottom] = np.asarray(_rgb(image.crop((0, top, image.width, bottom)), profile))
            return pixels
        except PhotoError:
            raise
        except Exception as error:
            raise PhotoError(PhotoReason.DAMAGED, first_line(error)) from error


def _rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to RGB by one rule per mode: 16-bit gray is scaled, transparency is put on white."""
    if image.mode.startswith("I"):
        gray = np.asarray(image, np.int64)
        if gray.min(initial=0) < 0 or gray.max(initial=0) > 65535:
            raise PhotoError(PhotoReason.UNSUPPORTED, "32-bit integer pixels have no defined white")
        return Image.fromarray((gray >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise PhotoError(PhotoReason.UNSUPPORTED, "floating-point pixels have no defined white")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    image = color.to_srgb(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")
