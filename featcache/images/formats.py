"""What a file is, by its first bytes, and opening it with Pillow's plugin for that format."""

from __future__ import annotations

import importlib
import io
import logging
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from PIL import Image, UnidentifiedImageError

from featcache.errors import ImageError
from featcache.images import tiff
from featcache.images.heif import HEIF_BRANDS, open_heif

# Module and opener of each format in Pillow. They are called directly: `Image.open` imports all plugins, and
# refuses by a limit that belongs to the user's process. A JPEG with several pictures (MPO) begins with the
# photo itself, so it is opened as JPEG.
_PLUGINS = {
    "JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "WEBP": ("WebPImagePlugin", "WebPImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
    "AVIF": ("AvifImagePlugin", "AvifImageFile"),
    "JPEG2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "PPM": ("PpmImagePlugin", "PpmImageFile"),
}

FORMATS = (*_PLUGINS, "HEIF")
"""Names of the formats that are read, in the order of their codes."""

_FIRST_BYTES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    *((prefix, "TIFF") for prefix in tiff.PREFIXES),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
)
_PPM = re.compile(rb"P(?:[1-6f]|0CMYK)[\s#]")
_AVIF_BRANDS = {b"avif", b"avis"}


def kind_of(data: bytes) -> str:
    """Return the format of a file, one of `FORMATS`; empty for every other file."""
    for prefix, kind in _FIRST_BYTES:
        if data.startswith(prefix):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if _PPM.match(data):
        return "PPM"
    brands = set(brands_of(data))
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & HEIF_BRANDS else ""


def brands_of(data: bytes) -> Iterator[bytes]:
    """Yield the brands of an ISO base media file, the major one first.

    Source: ISO/IEC 14496-12, section 4.3.
    """
    if data[4:8] != b"ftyp":
        return
    length = min(int.from_bytes(data[:4], "big"), 256, len(data) - len(data) % 4)
    yield data[8:12]
    yield from (data[at : at + 4] for at in range(16, length, 4))


def open_image(kind: str, data: bytes) -> Image.Image:
    """Read the header of a photo; nothing is decoded yet.

    Raises
    ------
    UnidentifiedImageError
        The file is of no format that is read.
    Exception
        The header is damaged; Pillow's plugins raise anything.
    """
    if not data:
        raise ImageError("empty file")
    if kind == "HEIF":
        return open_heif(data)
    if not kind:
        raise UnidentifiedImageError
    if kind == "TIFF":
        if raw := tiff.facts_of(data).raw:
            raise ImageError(f"a RAW photo of a camera ({raw}); save it as JPEG or PNG")
        data = tiff.readable(data)
    module, opener = _PLUGINS[kind]
    try:
        plugin = importlib.import_module(f"PIL.{module}")
        image: Image.Image = getattr(plugin, opener)(io.BytesIO(data), "")
    except (SyntaxError, IndexError, TypeError, KeyError, struct.error) as error:
        raise UnidentifiedImageError(str(error)) from error
    if kind == "PPM":
        _read_ppm_in_c(image)
    return image


def _read_ppm_in_c(image: Any) -> None:
    """Let Pillow read a binary PPM with a largest value other than 255 as it is, and keep that value.

    It would scale value by value in Python, a second for each million; `featcache.images.colour` scales.
    """
    (tile,) = image.tile
    if tile.codec_name == "ppm":
        mode, largest = tile.args
        raw = ("I;16B" if mode == "L" else f"{mode};16B") if largest > 255 else mode
        image.tile = [tile._replace(codec_name="raw", args=raw)]
        image.info["maxval"] = largest


_PILLOW = r"PIL\."
_PILLOW_FILTER: tuple[Any, ...] = ("ignore", None, Warning, re.compile(_PILLOW), 0)
_filter_lock = threading.Lock()


def silence_pillow() -> None:
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
