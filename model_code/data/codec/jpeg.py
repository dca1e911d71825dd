"""The header of a JPEG, read without decoding it: size, scans, orientation, color profile. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_HUFFMAN = frozenset({0xC0, 0xC1, 0xC2})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APP1, _APP2 = 0xE1, 0xE2
# Markers that end a scan. Stuffed zeros, restart markers and reserved codes are part of it, as in libjpeg.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
# Far beyond any encoder's; a file of empty segments must not keep a core busy.
_MAX_MARKERS = 20_000
_ICC = b"ICC_PROFILE\0"


@dataclass(frozen=True)
class JpegHeader:
    """The facts that a decoder needs before it starts.

    Attributes:
        height: Rows as stored, before any rotation.
        width: Columns as stored.
        components: 1 (gray), 3 (YCbCr or RGB) or 4 (CMYK or YCCK).
        least_bytes: Bytes below which the file cannot hold its pixels.
        scans: Passes over the pixels that decoding takes; counting stops one above the caller's limit.
        oriented: An EXIF or XMP segment may hold an orientation.
        profile: The embedded ICC profile, or None.
    """

    height: int
    width: int
    components: int
    least_bytes: int
    scans: int
    oriented: bool
    profile: bytes | None


def read_header(data: bytes, max_scans: int) -> JpegHeader | None:
    """Read the segments of a JPEG up to the end of its image; what follows (a video, a second image) is ignored.

    Segments may come in any order (ITU-T T.81, B.2.4), and an XMP segment of 64 kB often precedes EXIF.

    Args:
        data: The file's bytes.
        max_scans: Stop counting scans above this number.

    Returns:
        The header, or None where there is no frame to decode.
    """
    frame: tuple[int, int, int, int, int] | None = None
    oriented = False
    profile: dict[int, bytes] = {}
    scans = markers = 0
    position = 2
    while scans <= max_scans and markers < _MAX_MARKERS and (found := _MARKER.search(data, position)):
        markers += 1
        code, start = data[found.start() + 1], found.end()
        if code == _EOI:
            break
        if code == _SOI:
            position = start
            continue
        length = int.from_bytes(data[start : start + 2], "big")
        body = data[start + 2 : start + length] if code in (_APP1, _APP2) or code in _SOF else b""
        position = start + max(length, 2)
        if code == _SOS:
            scans += 1
            # One interleaved scan is all that a baseline file has; decoders stop after it.
            if frame and frame[0] not in _PROGRESSIVE and data[start + 2 : start + 3] == bytes([frame[3]]):
                break
        elif code in _SOF and len(body) >= 6:
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            frame = (code, height, width, body[5], _least_bytes(code, height * width, body[6:]))
        elif code == _APP1:
            oriented = oriented or body.startswith(b"Exif\0\0") or b"tiff:Orientation" in body
        elif code == _APP2 and body.startswith(_ICC) and len(body) > len(_ICC) + 2:
            profile[body[len(_ICC)]] = body[len(_ICC) + 2 :]
    if frame is None:
        return None
    joined = b"".join(profile[number] for number in sorted(profile))
    # Too many segments are refused as too many scans.
    total = scans if markers < _MAX_MARKERS else max_scans + 1
    return JpegHeader(*frame[1:], total, oriented, joined or None)


def _least_bytes(code: int, pixels: int, components: bytes) -> int:
    """Return the fewest bytes that code `pixels`: a Huffman code of one bit for each block of 8 x 8 samples.

    Decoders reserve memory for all pixels (in a progressive file for all coefficients, too) before they find that the
    file ends. Each component must have a scan (T.81, B.2.3).

    Args:
        code: The frame's marker.
        pixels: Of the frame.
        components: Three bytes for each component; the second has its two sampling factors (B.2.2).
    """
    factors = [(both >> 4, both & 15) for both in components[1::3]]
    largest = max((h for h, _ in factors), default=0) * max((v for _, v in factors), default=0)
    if code not in _HUFFMAN or not largest:
        return 0
    return pixels * sum(h * v for h, v in factors) // (largest * 64 * 8)
