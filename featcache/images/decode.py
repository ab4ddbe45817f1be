"""Turns the bytes of one photo into pixels: the one decoder that everything in the package uses."""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from featcache.errors import ImageError, did_you_mean

# A change that gives any photo other pixels than before must raise `featcache.versions.DECODER`.

# By content, in this order. "JPEG" covers MPO as well: its plugin finds out by itself.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")

Fit = Callable[[Image.Image, tuple[int, int], Image.Resampling], Image.Image]

_T = TypeVar("_T")


def decode(
    data: bytes, size: tuple[int, int], resize: str = "stretch", interpolation: str = "bilinear"
) -> NDArray[np.uint8]:
    """Decode one photo and bring it to a size.

    The format is found by content, not by name; the EXIF orientation is applied, transparency is laid
    over white, 16 bit are scaled to 8, and of an animation the first frame is taken.

    Parameters
    ----------
    data : bytes
        The file's content: JPEG, PNG, GIF, BMP, WebP or TIFF.
    size : (int, int)
        Height and width of the result.
    resize : {"stretch", "crop", "pad"}
        What happens to another aspect: it is stretched, cropped around the centre, or padded with black.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box"}
        Pillow's filter of that name; all but "nearest" average over the source when they make it smaller.

    Returns
    -------
    array of shape (height, width, 3), uint8
        RGB.

    Raises
    ------
    ImageError
        The photo cannot be decoded; the message is the reason, without the file's name.
    ValueError
        `resize` or `interpolation` is unknown.
    """
    fit = _choose("resize", resize, FITS)
    return _decode_or_say_why(data, size, fit, _choose("interpolation", interpolation, INTERPOLATIONS))


def thumbnail(data: bytes, side: int) -> NDArray[np.uint8]:
    """Decode one photo for people to look at: the whole of it, in its own aspect.

    Parameters
    ----------
    data : bytes
        As `decode` takes it.
    side : int
        Pixels of the longer side; a smaller photo is left as it is.

    Returns
    -------
    array of shape (height, width, 3), uint8
        RGB.

    Raises
    ------
    ImageError
        The photo cannot be decoded.
    """
    return _decode_or_say_why(data, (side, side), _shrink, Image.Resampling.LANCZOS)


def _decode_or_say_why(
    data: bytes, size: tuple[int, int], fit: Fit, resample: Image.Resampling
) -> NDArray[np.uint8]:
    _silence_pillow()
    try:
        return _decode(data, size, fit, resample)
    except ImageError:
        raise
    except Exception as error:
        # Pillow's plugins trip over broken files with whatever their parser hits first: OSError, SyntaxError,
        # ValueError, IndexError, struct.error, zlib.error, MemoryError and more. For us all mean the same.
        raise ImageError(_reason(error)) from error


def _decode(data: bytes, size: tuple[int, int], fit: Fit, resample: Image.Resampling) -> NDArray[np.uint8]:
    height, width = size
    with _open(data) as image:
        if resample != Image.Resampling.NEAREST:
            _shrink_while_decoding(image, (width, height))
        image.load()
        upright = _turn_upright(image)
        return np.array(fit(_to_rgb(upright), (width, height), resample), dtype=np.uint8)


def _open(data: bytes) -> Image.Image:
    """Read the header and refuse what would need too much memory, before any pixel is decoded."""
    if not data:
        raise ImageError("empty file")
    limit = Image.MAX_IMAGE_PIXELS
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise ImageError(f"not an image of a known format ({known}), or its header is damaged") from error
    except Image.DecompressionBombError as error:
        # Pillow refuses by itself from twice the limit on, and then keeps width and height for itself.
        raise ImageError(f"far too large: more than twice the limit of {limit} pixels") from error
    if limit is not None and image.width * image.height > limit:
        raise ImageError(f"{image.width}×{image.height} pixels are over the limit of {limit}")
    return image


def _shrink_while_decoding(image: Image.Image, size: tuple[int, int]) -> None:
    """Let the JPEG decoder give 1/2, 1/4 or 1/8 of the size: about twice as fast, never below `size`."""
    if image.format not in ("JPEG", "MPO"):
        return  # only JPEG can; and Pillow's Exif reader decodes a PNG
    width, height = size
    lies_on_its_side = _orientation(image) in (5, 6, 7, 8)
    image.draft(None, (height, width) if lies_on_its_side else (width, height))


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(value)
    except Exception:  # noqa: BLE001
        # A damaged Exif block raises anything at all, and the photo beside it is still good.
        return 1


def _turn_upright(image: Image.Image) -> Image.Image:
    # Asked after load(): Pillow turns TIFF by itself while loading and then forgets the orientation.
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = _sixteen_to_eight_bits(image)
    if image.mode in ("I", "F"):
        raise ImageError(f"32 bit values (mode {image.mode}) have no fixed range; save it with 8 or 16 bit")
    return _over_white(image) if image.has_transparency_data else image.convert("RGB")


def _sixteen_to_eight_bits(image: Image.Image) -> Image.Image:
    """Keep the high byte, as Pillow does for 16 bit colour; its own conversion of grey clips at 255."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:  # one value of PNG's that stands for nothing
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _stretch(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    return image.resize(size, resample)


def _crop(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Take the largest centred box of the wanted aspect; its edges may lie between pixels."""
    scale = min(image.width / size[0], image.height / size[1])
    left = max(0.0, (image.width - size[0] * scale) / 2)
    top = max(0.0, (image.height - size[1] * scale) / 2)
    return image.resize(size, resample, box=(left, top, image.width - left, image.height - top))


def _pad(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", size)
    canvas.paste(image.resize(inner, resample), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return canvas


def _shrink(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Keep the aspect inside of the size, and what is smaller as it is."""
    scale = min(size[0] / image.width, size[1] / image.height, 1.0)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(inner, resample)


FITS: Mapping[str, Fit] = {"stretch": _stretch, "crop": _crop, "pad": _pad}

INTERPOLATIONS: Mapping[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}

_TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _choose(what: str, name: str, known: Mapping[str, _T]) -> _T:
    if name not in known:
        raise ValueError(f"{what} {name!r} is none of {', '.join(known)}.{did_you_mean(name, known)}")
    return known[name]


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = " ".join(str(error).split())[:200] or type(error).__name__
    cut_off = isinstance(error, EOFError) or "truncated" in text.lower()
    return f"{'truncated' if cut_off else 'damaged'}: {text}"


_PILLOW = r"PIL\."
_PILLOW_FILTER: tuple[Any, ...] = ("ignore", None, Warning, re.compile(_PILLOW), 0)
_filter_lock = threading.Lock()


def _silence_pillow() -> None:
    """Ignore what Pillow itself warns of and logs (damaged Exif, many pixels): we say it in our own words.

    ``warnings.catch_warnings`` saves and restores a list that all threads share, so threads that decode
    at once would undo each other. One filter that stays is safe; it is looked for every time, because
    somebody's ``catch_warnings`` may have taken it away.
    """
    if _PILLOW_FILTER not in warnings.filters:
        with _filter_lock:
            if _PILLOW_FILTER not in warnings.filters:
                warnings.filterwarnings("ignore", module=_PILLOW)
    log = logging.getLogger("PIL")
    if not log.hasHandlers():
        log.addHandler(logging.NullHandler())  # where nobody set logging up, Python prints errors to stderr
