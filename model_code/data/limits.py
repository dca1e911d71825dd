"""The photos that training, evaluation and serving accept: formats and sizes. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Pillow's own alarm level: a quarter GiB of RGB. Covers the sensors of all common cameras.
MAX_PIXELS = 89_478_485
MAX_FILE_BYTES = 50_000_000
# A JPEG of several scans pays one pass over its pixels per scan. libjpeg writes 10 for color and 18 for CMYK; a bomb
# writes thousands.
MAX_JPEG_SCANS = 200
MAX_SCANNED_PIXELS = 18 * MAX_PIXELS
# Photos start within this many bytes with all that `sniff` looks at, the brands of an ISO media file included.
SNIFFED_BYTES = 256


@dataclass(frozen=True)
class Format:
    """A photo format.

    Attributes:
        name: Pillow's name.
        suffix: Suffix inside shards, without a dot.
        endings: Endings of file names, in lower case.
        media_types: Registered media types, and unregistered ones that clients send.
    """

    name: str
    suffix: str
    endings: tuple[str, ...]
    media_types: tuple[str, ...]


# Only formats whose readers are plain decoders: no Ghostscript, no delegates. The JPEG reader also reads MPO.
FORMATS = (
    Format(
        "JPEG",
        "jpg",
        (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo"),
        ("image/jpeg", "image/jpg", "image/pjpeg", "image/jfif"),
    ),
    Format("PNG", "png", (".png", ".apng"), ("image/png", "image/apng", "image/x-png")),
    Format("WEBP", "webp", (".webp",), ("image/webp",)),
    Format("GIF", "gif", (".gif",), ("image/gif",)),
    Format("BMP", "bmp", (".bmp", ".dib"), ("image/bmp", "image/x-ms-bmp", "image/x-bmp")),
    Format("TIFF", "tif", (".tif", ".tiff"), ("image/tiff", "image/tif")),
    Format("AVIF", "avif", (".avif",), ("image/avif",)),
    # Readable where the package pi-heif is installed; stored as JPEG.
    Format(
        "HEIF", "heic", (".heic", ".heif", ".hif"), ("image/heic", "image/heif", "image/heic-sequence")
    ),
)  # fmt: skip
SUFFIXES = {item.name: item.suffix for item in FORMATS}
ENDINGS = frozenset(ending for item in FORMATS for ending in item.endings)
# The bytes decide, not the media type: these are what a client may declare for a photo.
MEDIA_TYPES = frozenset(kind for item in FORMATS for kind in item.media_types) | {"application/x-image"}

_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"hevx",
    b"hevm",
    b"hevs",
    b"mif1",
    b"msf1",
    b"mif2",
}
# Formats that users mistake for supported ones, by their first bytes.
_FOREIGN = (
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"), "JPEG XL"),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"8BPS"), "Photoshop"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "PostScript"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", re.DOTALL), "SVG"),
    (re.compile(rb"FUJIFILMCCD-RAW|IIRO|IIU\0|....ftypcrx ", re.DOTALL), "camera RAW"),
    (re.compile(rb"....ftyp(isom|mp4|qt  |M4V|3gp|avc1)|\x1a\x45\xdf\xa3|RIFF....AVI ", re.DOTALL), "video"),
    (re.compile(rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!"), "archive"),
)  # fmt: skip


def sniff(head: bytes) -> str | None:
    """Identify a photo's format by the first `SNIFFED_BYTES` bytes.

    Returns:
        A name of `FORMATS`, or None for anything else.
    """
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
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    brands = _brands(head)
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & _HEIF_BRANDS else None


def foreign(head: bytes) -> str | None:
    """Name a known format that is not supported, by its first bytes; None for unknown bytes."""
    return next((name for pattern, name in _FOREIGN if pattern.match(head)), None)


def _brands(head: bytes) -> set[bytes]:
    """Return the major and the compatible brands of an ISO media file (ISO/IEC 14496-12, 4.3)."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}


def has_photo_ending(name: str) -> bool:
    """Tell whether a file name or key ends as one of a photo does; nothing is opened."""
    base = name.rpartition("/")[2]
    _, dot, ending = base.rpartition(".")
    return f"{dot}{ending}".lower() in ENDINGS


def has_no_ending(name: str) -> bool:
    """Tell whether a visible file has no ending at all, as photos of caches and exports often do."""
    base = name.rpartition("/")[2]
    return bool(base) and "." not in base
