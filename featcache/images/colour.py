"""Samples of any kind to RGB of 8 bits: depth, range, transparency, CMYK."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featcache.errors import ImageError
from featcache.images import tiff
from featcache.images.formats import open_image
from featcache.images.profiles import apply_profile
from featcache.images.views import cut

Range = str | tuple[float, float]

OPAQUE, TRANSPARENT, TRANSPARENCY_IGNORED = 0, 1, 2

# Rows that are scaled or laid over white at a time, which bounds the memory of the copies.
_BAND_ROWS = 512
# Above this, the high byte of 16 bit colour says enough of its highest value.
_DARK = 64
_MOST_DARK_PIXELS = 30_000_000
# Pillow reads the high byte of 16 bit colour. With the other byte order it reads the low one, and from grey
# with alpha, taken as four bytes, both.
_OTHER_BYTE = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGBX;16B": "RGBX;16L",
    "RGBX;16L": "RGBX;16B",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "LA;16B": "RGBA",
}
_NATIVE = "L" if np.little_endian else "B"


@dataclass(frozen=True, slots=True)
class Colours:
    """What was found in the colours of a file.

    Attributes
    ----------
    bits : int
        Per sample, in the file.
    highest : float
        Highest value of a sample with more than 8 bits, as in the file; 0 for 8 bits.
    transparency : int
        `OPAQUE`, `TRANSPARENT`, or `TRANSPARENCY_IGNORED` where nothing of the photo would be seen.
    profile : bytes or None
        ICC profile that is still to be applied.
    """

    bits: int
    highest: float
    transparency: int
    profile: bytes | None


@dataclass(frozen=True, slots=True)
class _Deep:
    """Samples of more than 8 bits.

    Attributes
    ----------
    values : ndarray, shape (height, width) or (height, width, 3)
    alpha : ndarray of uint8, shape (height, width), or None
    full : (float, float) or None
        Smallest and largest value that there can be; None where the file does not limit them.
    what : str
        Name of the kind of samples.
    """

    values: NDArray[Any]
    alpha: NDArray[np.uint8] | None
    full: tuple[float, float] | None
    what: str


def to_rgb(
    image: Image.Image, kind: str, data: bytes, range_: Range, convert: bool
) -> tuple[Image.Image, Colours]:
    """Return a loaded photo as RGB of 8 bits, before its orientation is applied.

    Parameters
    ----------
    image : Image
        Loaded from `data`.
    kind : str
        Its format.
    data : bytes
    range_ : "full", "minmax" or (float, float)
        As `featcache.images.decode.Decoding` says.
    convert : bool
        Whether an ICC profile is applied. That of CMYK is applied here, others are left to the caller, who
        has fewer pixels after resizing.

    Raises
    ------
    ImageError
        The samples have no fixed range, and `range_` gives none.
    """
    bits, highest = bits_of(image, kind, data), 0.0
    if image.info.get("maxval", 255) < 255:
        image = image.point(_scaled_from(image.info["maxval"]) * len(image.getbands()))
    profile = image.info.get("icc_profile") if convert else None
    deep = _deep_samples(image, kind, data, bits, range_)
    if deep is not None:
        highest = float(deep.values.max(initial=0))
        image = _to_eight_bits(deep, range_)
    elif kind == "PNG":
        _scale_transparent_grey(image, bits)
    elif kind == "TIFF" and image.mode == "RGBA" and tiff.facts_of(data).extra is None:
        image = image.convert("RGB")  # the meaning of the fourth sample is not declared
    if image.mode == "CMYK" and profile:
        image, profile = apply_profile(image, profile), None
    rgb, transparency = _opaque(image)
    return rgb, Colours(bits, highest, transparency, profile)


def bits_of(image: Image.Image, kind: str, data: bytes) -> int:
    """Return the bits of a sample, as the file declares them."""
    if kind == "PNG":
        return data[24]  # IHDR is the first chunk
    if kind == "TIFF":
        return tiff.facts_of(data).bits
    if image.mode == "1":
        return 1
    if "maxval" in image.info:
        return int(image.info["maxval"]).bit_length()
    return 16 if image.mode.startswith("I") else 32 if image.mode == "F" else 8


def _deep_samples(image: Image.Image, kind: str, data: bytes, bits: int, range_: Range) -> _Deep | None:
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(image, kind, data)
    if needs_both_bytes(image, bits, range_) or _is_dark_colour(image, bits):
        return _deep_colour(image, kind, data)
    return None


def needs_both_bytes(image: Image.Image, bits: int, range_: Range) -> bool:
    """Whether the high bytes of a photo's 16 bit colour are not enough; reading both takes memory."""
    if bits <= 8 or image.mode not in ("RGB", "RGBA"):
        return False
    return range_ != "full" or "transparency" in image.info or "maxval" in image.info


def _is_dark_colour(image: Image.Image, bits: int) -> bool:
    """Whether 16 bit colour holds so small values that the highest one is to be known."""
    if bits != 16 or image.mode not in ("RGB", "RGBA") or image.width * image.height > _MOST_DARK_PIXELS:
        return False
    return max(high for _, high in image.getextrema()[:3]) < _DARK  # type: ignore[misc]


def _deep_grey(image: Image.Image, kind: str, data: bytes) -> _Deep:
    values = np.asarray(image)
    key = image.info.get("transparency")
    alpha = None if key is None else np.where(values == key, 0, 255).astype(np.uint8)
    if kind != "TIFF":
        full = None if image.mode == "F" else (0, image.info.get("maxval", 65535))
        return _Deep(values, alpha, full, "32 bit floating point")
    facts = tiff.facts_of(data)
    what = f"{'signed ' if facts.signed else ''}{facts.bits} bit{' floating point' if facts.floating else ''}"
    if facts.signed or facts.floating or facts.bits > 16:
        return _Deep(-values if facts.white_is_zero else values, None, None, what)
    largest = (1 << facts.bits) - 1
    return _Deep(largest - values if facts.white_is_zero else values, None, (0, largest), what)


def _deep_colour(image: Image.Image, kind: str, data: bytes) -> _Deep:
    high = np.asarray(image)
    low = _low_bytes(kind, data)
    alpha = high[..., 3] if image.mode == "RGBA" else None
    if kind == "PNG" and image.mode == "RGBA" and data[25] == 4:  # grey with alpha: both bytes are in `low`
        values, alpha = low[..., 0].astype(np.uint16) << 8 | low[..., 1], low[..., 2]
    else:
        values = high[..., :3].astype(np.uint16) << 8 | low[..., :3]
    key = image.info.get("transparency")
    if key is not None:
        alpha = np.where((values == key).all(axis=-1), 0, 255).astype(np.uint8)
    if kind == "TIFF" and tiff.facts_of(data).extra is None:
        alpha = None
    return _Deep(values, alpha, (0, image.info.get("maxval", 65535)), "16 bit")


def _low_bytes(kind: str, data: bytes) -> NDArray[np.uint8]:
    """Decode 16 bit colour once more, for the bytes that Pillow leaves out; zeros where it cannot be done."""
    with open_image(kind, data) as again:
        tiles = getattr(again, "tile", [])
        again.tile = [tile._replace(args=_other_byte(tile.args)) for tile in tiles]  # type: ignore[attr-defined]
        known = again.tile != tiles  # type: ignore[attr-defined]
        again.load()
        low = np.asarray(again)
    return low if known else np.zeros_like(low)


def _other_byte(args: Any) -> Any:
    raw = args if isinstance(args, str) else args[0]
    other = _OTHER_BYTE.get(raw.removesuffix("N") + _NATIVE if raw.endswith(";16N") else raw, raw)
    return other if isinstance(args, str) else (other, *args[1:])


def _to_eight_bits(deep: _Deep, range_: Range) -> Image.Image:
    low, high = _limits(deep, range_)
    if (low, high) == (0, 65535):
        levels = (deep.values >> 8).astype(np.uint8)  # as Pillow does for 16 bit colour
    else:
        levels = np.empty(deep.values.shape, np.uint8)
        for top in range(0, len(levels), _BAND_ROWS):
            levels[top : top + _BAND_ROWS] = _scaled(deep.values[top : top + _BAND_ROWS], low, high)
    image = Image.fromarray(levels)
    if deep.alpha is not None:
        image.putalpha(Image.fromarray(np.ascontiguousarray(deep.alpha)))
    return image


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (values.astype(np.float32) - low) * (255 / (high - low) if high > low else 0.0)
    levels: NDArray[np.uint8] = np.nan_to_num(scaled, posinf=255.0).round().clip(0, 255).astype(np.uint8)
    return levels


def _limits(deep: _Deep, range_: Range) -> tuple[float, float]:
    if not isinstance(range_, str):
        return range_
    if range_ == "minmax":
        finite = deep.values[np.isfinite(deep.values)]
        return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if deep.full is None:
        raise ImageError(
            f'{deep.what} values have no fixed range; set base.range = [low, high] or "minmax", or save it '
            "with 8 or 16 bit"
        )
    return deep.full


def _scaled_from(largest: int) -> list[int]:
    """Return a table that scales values up to `largest` to 8 bits."""
    return [min(255, round(value * 255 / largest)) for value in range(256)]


def _scale_transparent_grey(image: Image.Image, bits: int) -> None:
    """Bring PNG's transparent grey to 8 bits, as Pillow does with the grey itself."""
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        largest = (1 << bits) - 1
        image.info["transparency"] = (key & largest) * 255 // largest


def _opaque(image: Image.Image) -> tuple[Image.Image, int]:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image, OPAQUE  # a copy would take as long as a tenth of decoding
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB"), OPAQUE
    if any(band.getchannel("A").getbbox() for _, band in _bands(image)):
        return _over_white(image), TRANSPARENT
    image.info.pop("transparency", None)
    return image.convert("RGB"), TRANSPARENCY_IGNORED


def _over_white(image: Image.Image) -> Image.Image:
    """Lay a transparent image over white, in bands: whole copies would take five times its memory."""
    opaque = Image.new("RGB", image.size)
    for top, band in _bands(image):
        white = Image.new("RGBA", band.size, (255, 255, 255, 255))
        opaque.paste(Image.alpha_composite(white, band).convert("RGB"), (0, top))
    return opaque


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield bands of an image as RGBA, each with its first row."""
    for top in range(0, image.height, _BAND_ROWS):
        box = (0, top, image.width, min(top + _BAND_ROWS, image.height))
        yield top, cut(image, box).convert("RGBA")
