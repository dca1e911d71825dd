"""Photo bytes in, RGB pixels out: one decoder for data sets, training and the server.

Baseline and progressive JPEG go through libjpeg-turbo (simplejpeg), everything else through Pillow; where
both can read a photo they give the same pixels. Whatever cannot be read is a `PhotoError` with a reason,
never another exception.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

try:
    import simplejpeg
except ImportError:  # a bare training container: Pillow reads everything, more slowly
    simplejpeg = None

Pixels = NDArray[np.uint8]

# Pillow's own alarm level: a quarter GiB of RGB.
MAX_PIXELS = 89_478_485
# A progressive JPEG pays a full pass per scan: an encoder writes about 10, a bomb writes thousands.
MAX_JPEG_SCANS = 200
# Only formats whose Pillow readers are plain decoders: no Ghostscript, no delegates. JPEG's also reads MPO.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
PHOTO_SUFFIXES = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "AVIF": "avif",
}

# Pillow remarks on every oddity of a file; what matters here is whether it decodes, and our own limit of
# pixels.
warnings.filterwarnings("ignore", module="PIL")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_ORIENTATION_TAG = 0x0112
_STRIP = 256
"""Rows converted at a time: each step of a conversion copies what it is given, and a big photo whole takes six copies.
"""
_HASH_SIDE = 32
_HASH_LOW = 8
# Below this contrast (grey levels) the signs of the low frequencies are rounding noise.
_HASH_MIN_CONTRAST = 1.0


class PhotoReason(StrEnum):
    """Why a photo cannot be used."""

    EMPTY = "empty file"
    NOT_A_PHOTO = "not a photo in a supported format"
    DAMAGED = "damaged or truncated"
    TOO_LARGE = "too large"
    UNSUPPORTED = "unsupported pixel format"


class PhotoError(ValueError):
    """A photo that cannot be decoded. `reason` is the kind, `str()` the line for people."""

    def __init__(self, reason: PhotoReason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason


def sniff(head: bytes) -> str | None:
    """Format of a photo by its first 16 or more bytes (a Pillow format name), or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM"):
        return "BMP"
    if head.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    return None


def decode(data: bytes, *, min_side: int = 0, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a photo as it should be looked at: upright, first frame, transparency on white.

    :param data: the file's bytes.
    :param min_side: when positive, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as the
        shorter side keeps at least this many pixels (the codec's scaled inverse DCT: faster, and a proper
        low-pass).
    :param max_pixels: photos of more pixels are refused before any of them is decoded.
    :return: uint8 array [height, width, 3], RGB.
    :raises PhotoError: for anything else.
    """
    kind = _checked_kind(data)
    if kind == "JPEG":
        pixels = _decode_jpeg(data, "RGB", min_side, max_pixels)
        if pixels is not None:
            return pixels
    return _decode_pillow(data, max_pixels)


def size(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width in pixels as stored (before EXIF rotation), from the header alone.

    :raises PhotoError: as `decode`.
    """
    if _checked_kind(data) == "JPEG":
        header = _jpeg_header(data, max_pixels)
        if header is not None:
            return header[0], header[1]
    with _opened(data, max_pixels) as image:
        return image.height, image.width


def perceptual_hash(data: bytes, *, max_pixels: int = MAX_PIXELS) -> int | None:
    """64-bit DCT hash (pHash) of a photo; near-duplicates differ in few bits. Decoding it also proves the
    file whole.

    The signs of the 8 x 8 lowest frequencies of a 32 x 32 grey thumbnail, relative to their median (Zauner,
    2010).

    :return: None for a picture without contrast, whose hash would say nothing.
    :raises PhotoError: as `decode`.
    """
    grey: Pixels | None = None
    if _checked_kind(data) == "JPEG":
        grey = _decode_jpeg(data, "GRAY", 2 * _HASH_SIDE, max_pixels)
    if grey is None:
        image = Image.fromarray(_decode_pillow(data, max_pixels)).convert("L")
    else:
        image = Image.fromarray(grey[:, :, 0])
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


def _checked_kind(data: bytes) -> str:
    if not data:
        raise PhotoError(PhotoReason.EMPTY)
    kind = sniff(data[:16])
    if kind is None:
        heic = data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc")
        raise PhotoError(PhotoReason.NOT_A_PHOTO, "HEIC: convert it to JPEG first" if heic else "")
    return kind


def _jpeg_header(data: bytes, max_pixels: int) -> tuple[int, int, str] | None:
    if simplejpeg is None:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):  # KeyError: a colour space it has no name for
        return None
    _check_pixels(height, width, max_pixels)
    return height, width, colours


def _decode_jpeg(data: bytes, colours: str, min_side: int, max_pixels: int) -> Pixels | None:
    """Pixels by libjpeg-turbo, or None where Pillow has to decide (CMYK, odd files)."""
    header = _jpeg_header(data, max_pixels)
    if header is None or header[2] in ("CMYK", "YCCK"):
        return None
    if data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise PhotoError(PhotoReason.UNSUPPORTED, f"a JPEG of more than {MAX_JPEG_SCANS} scans")
    height, width, _ = header
    factor = scale_factor(min(height, width), min_side)
    try:
        pixels = simplejpeg.decode_jpeg(
            data, colours, min_height=-(-height // factor), min_width=-(-width // factor), strict=True
        )
    except ValueError:
        return None
    return _upright(pixels, _orientation(data))


def scale_factor(short_side: int, min_side: int) -> int:
    """The largest of 1, 2, 4, 8 that leaves `short_side` at least `min_side` pixels; 1 for `min_side` 0."""
    if min_side <= 0:
        return 1
    return next((f for f in (8, 4, 2) if short_side >= f * min_side), 1)


def _orientation(data: bytes) -> int:
    """EXIF orientation 1-8 of a JPEG; the full parser runs only where there is an EXIF block."""
    if b"Exif\0\0" not in data[:65536]:
        return 1
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


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PhotoError(PhotoReason.TOO_LARGE, str(error)) from error
    except Exception as error:  # Pillow's readers raise almost anything on hostile bytes
        raise PhotoError(PhotoReason.DAMAGED, _first_line(error)) from error
    _check_pixels(image.height, image.width, max_pixels)
    return image


def _decode_pillow(data: bytes, max_pixels: int) -> Pixels:
    with _opened(data, max_pixels) as image:
        try:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.empty((image.height, image.width, 3), np.uint8)
            for top in range(0, image.height, _STRIP):
                bottom = min(top + _STRIP, image.height)
                pixels[top:bottom] = np.asarray(_rgb(image.crop((0, top, image.width, bottom))))
            return pixels
        except PhotoError:
            raise
        except Exception as error:
            raise PhotoError(PhotoReason.DAMAGED, _first_line(error)) from error


def _rgb(image: Image.Image) -> Image.Image:
    """RGB by one rule per mode: 16-bit grey is scaled, transparency lies on white."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        grey = np.asarray(image, np.int64)
        if grey.min(initial=0) < 0 or grey.max(initial=0) > 65535:
            raise PhotoError(PhotoReason.UNSUPPORTED, "32-bit integer pixels have no defined white")
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise PhotoError(PhotoReason.UNSUPPORTED, "floating-point pixels have no defined white")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
