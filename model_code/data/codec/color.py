"""Embedded ICC profiles to sRGB, so that photos of different cameras have comparable numbers."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_RELATIVE_COLORIMETRIC = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
# Profiles that move no color by more than this many levels are sRGB under another name: nothing to convert.
_SAME = 2
_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an image of mode RGB, L or CMYK from its embedded profile to sRGB.

    Args:
        image: Pixels as stored.
        profile: The bytes of an ICC profile. Where there is none, or none that fits the mode, the numbers are
            taken for sRGB, as browsers do.

    Returns:
        The image itself where nothing has to be converted, else one of mode RGB.
    """
    transform = _transform(profile, image.mode) if profile else None
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image, transform)
    return image if converted is None else converted


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _SPACES.get(source.profile.xcolor_space) != mode:
            return None
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB", _RELATIVE_COLORIMETRIC, _FLAGS)
        if mode == "RGB" and _is_identity(transform):
            return None
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return transform


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    lattice = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    converted = ImageCms.applyTransform(Image.fromarray(lattice), transform)
    return converted is not None and bool(
        (np.abs(np.asarray(converted, int) - lattice.astype(int)) <= _SAME).all()
    )
