"""Colours with an embedded ICC profile, converted to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

# Profiles larger than this are left alone; those of printers have up to a few megabytes.
_MOST_BYTES = 16 << 20
# A set of photos has few different profiles; a profile of a printer takes megabytes.
_MOST_PROFILES = 32
# Colours that a profile moves by no more levels than this are sRGB, whatever the profile is called.
_SAME = 3

_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image to sRGB.

    Parameters
    ----------
    image : Image
        RGB, or CMYK for a profile of CMYK. Grey photos are RGB with three equal channels.
    profile : bytes
        ICC profile. One that is damaged, too large or of another colour space changes nothing: the colours
        are as likely right without it, and the photo is not lost.

    Returns
    -------
    Image
        RGB for a CMYK profile that fits; otherwise of the mode of `image`.
    """
    if len(profile) > _MOST_BYTES:
        return image
    mode, transform = _transform_of(profile)
    if transform is None or (mode == "CMYK") != (image.mode == "CMYK"):
        return image
    given = image.convert("L") if mode == "L" else image
    return ImageCms.applyTransform(given, transform) or image


@lru_cache(_MOST_PROFILES)
def _transform_of(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return the mode that a profile is for, and its transform to sRGB; None where it changes nothing."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES[source.profile.xcolor_space]
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        colours = _colours(mode)
        changed = ImageCms.applyTransform(colours, transform)
    except (ImageCms.PyCMSError, KeyError, ValueError, TypeError, OSError):
        return "", None
    if changed is None:
        return "", None
    same = mode != "CMYK" and _distance(colours.convert("RGB"), changed) <= _SAME
    return mode, None if same else transform


def _colours(mode: str) -> Image.Image:
    """Return an image of colours from everywhere in a colour space: 9 levels of each channel."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    bands = len(Image.new(mode, (1, 1)).getbands())
    grid = np.stack(np.meshgrid(*[levels] * bands), axis=-1).reshape(-1, 9, bands)
    return Image.fromarray(grid if bands > 1 else grid[..., 0], mode)


def _distance(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())
