"""Decodes the bytes of one photo to pixels; the only decoder in the package."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from featcache.errors import ImageError, did_you_mean
from featcache.images.scans import count_scans, first_scan_components
from featcache.images.views import View, cropped, draw, least_side, varied

# A change that gives any photo other pixels than before must raise `featcache.versions.DECODER`.

# By content, in this order. "JPEG" covers MPO as well: its plugin finds out by itself.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")

# Bytes per pixel at the peak of decoding: the decoded photo, a turned copy and the RGB copy, four bytes each.
_BYTES_PER_PIXEL = 12
# libwebp keeps a second canvas; 16.1 bytes were measured.
_BYTES_PER_PIXEL_OF_WEBP = 17
# Of a JPEG with several scans, libjpeg keeps all coefficients of all components, however far it is reduced.
_BYTES_PER_COEFFICIENT = 2
_BUDGET_BYTES = 1200 << 20
# Each scan of a JPEG is a pass over all pixels, also of one that is reduced while it is decoded.
# A photo of 12 megapixels has about ten scans; this many pixels take 2 s.
_MOST_SCANNED_PIXELS = 2_000_000_000
_START_OF_SCAN = b"\xff\xda"
# Rows that are laid over white at a time, which bounds the memory of the copies.
_BAND_ROWS = 512

Fit = Callable[[Image.Image, tuple[int, int], Image.Resampling], Image.Image]

_T = TypeVar("_T")


def decode(
    data: bytes, size: tuple[int, int], resize: str = "stretch", interpolation: str = "bilinear"
) -> NDArray[np.uint8]:
    """Decode one photo and resize it.

    The format is detected by content, not by name. The EXIF orientation is applied, transparency is
    composited over white, 16 bit are scaled to 8, and only the first frame of an animation is used.

    Parameters
    ----------
    data : bytes
        The file's content: JPEG, PNG, GIF, BMP, WebP or TIFF.
    size : (int, int)
        Height and width of the result.
    resize : {"stretch", "crop", "pad"}
        How a different aspect ratio is handled: stretched, center-cropped, or padded with black.
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
    return decode_views(data, b"", [None], size, resize, interpolation)[0]


def decode_views(
    data: bytes,
    digest: bytes,
    views: Sequence[View | None],
    size: tuple[int, int],
    resize: str = "stretch",
    interpolation: str = "bilinear",
) -> list[NDArray[np.uint8]]:
    """Decode one photo and resize its views.

    A view's pixels do not depend on which other views are requested. The crop is taken at full resolution,
    then resized with `resize` and `interpolation` as `decode` does for a whole photo; the other transforms
    are applied after that, as by Keras's preprocessing layers.

    Parameters
    ----------
    data : bytes
    digest : bytes
        Of the data; it seeds the views.
    views : sequence of View or None
        None is the plain photo, as `decode` gives it.
    size, resize, interpolation
        As in `decode`, with the same errors.

    Returns
    -------
    list of arrays of shape (height, width, 3), uint8
        One for each view.
    """
    fit = _choose("resize", resize, FITS)
    resample = _choose("interpolation", interpolation, INTERPOLATIONS)
    with _failures_in_words():
        photo = _EncodedPhoto(data, shrinks=resample != Image.Resampling.NEAREST)
        return [_pixels(photo, digest, view, size, fit, resample) for view in views]


def decode_image(
    image: Image.Image, size: tuple[int, int], resize: str = "stretch", interpolation: str = "bilinear"
) -> NDArray[np.uint8]:
    """Resize an image that Pillow holds already, as `decode` does with a file.

    `decode` reduces a JPEG file while it decodes it, and an image of Pillow's is not reduced: their pixels
    differ a little.

    Parameters
    ----------
    image : PIL.Image.Image
        Of any mode that `decode` takes; it is loaded and not changed.
    size, resize, interpolation
        As in `decode`, with the same result and the same errors.
    """
    fit = _choose("resize", resize, FITS)
    resample = _choose("interpolation", interpolation, INTERPOLATIONS)
    with _failures_in_words():
        _check_memory(image)
        image.load()
        fitted = fit(_to_rgb(_turn_upright(image)), (size[1], size[0]), resample)
        return np.array(fitted, dtype=np.uint8)


def thumbnail(data: bytes, side: int) -> NDArray[np.uint8]:
    """Decode one photo for display: uncropped, in its own aspect ratio.

    Parameters
    ----------
    data : bytes
        As `decode` takes it.
    side : int
        Pixels of the longer side; smaller photos are not enlarged.

    Returns
    -------
    array of shape (height, width, 3), uint8
        RGB.

    Raises
    ------
    ImageError
        The photo cannot be decoded.
    """
    with _failures_in_words():
        return _pixels(
            _EncodedPhoto(data, shrinks=True), b"", None, (side, side), _shrink, Image.Resampling.LANCZOS
        )


@contextlib.contextmanager
def _failures_in_words() -> Iterator[None]:
    _silence_pillow()
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        # Pillow's plugins raise any exception on broken files: OSError, SyntaxError, ValueError, IndexError,
        # struct.error, zlib.error, MemoryError and more.
        raise ImageError(_reason(error)) from error


def _pixels(
    photo: _EncodedPhoto,
    digest: bytes,
    view: View | None,
    size: tuple[int, int],
    fit: Fit,
    resample: Image.Resampling,
) -> NDArray[np.uint8]:
    height, width = size
    if view is None:
        image = fit(photo.upright((width, height)), (width, height), resample)
    else:
        drawn, share = draw(digest, view), least_side(view.settings)
        whole = photo.upright((math.ceil(width / share), math.ceil(height / share)))
        image = varied(fit(cropped(whole, drawn), (width, height), resample), drawn)
    return np.array(image, dtype=np.uint8)


class _EncodedPhoto:
    """The bytes of one photo; decoded once for each size that the JPEG decoder is asked for."""

    def __init__(self, data: bytes, shrinks: bool) -> None:
        self._data, self._shrinks = data, shrinks
        self._decoded: dict[tuple[int, int], Image.Image] = {}

    def upright(self, size: tuple[int, int]) -> Image.Image:
        """Return the photo as RGB, not smaller than `size` (width, height) unless it is so itself."""
        with _open(self._data) as image:
            _check_jpeg(image, self._data)
            if self._shrinks:
                _shrink_while_decoding(image, size)
            _check_memory(image)
            given = image.size
            if given not in self._decoded:
                image.load()
                self._decoded[given] = _to_rgb(_turn_upright(image))
            return self._decoded[given]


def _open(data: bytes) -> Image.Image:
    """Read the header; nothing is decoded yet."""
    if not data:
        raise ImageError("empty file")
    _check_webp(data)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise ImageError(f"not an image of a known format ({known}), or its header is damaged") from error
    except Image.DecompressionBombError as error:
        # Pillow refuses by itself from twice the limit on, and then keeps width and height for itself.
        raise ImageError(
            f"far too large: more than twice the limit of {Image.MAX_IMAGE_PIXELS} pixels"
        ) from error
    return image


def _check_jpeg(image: Image.Image, data: bytes) -> None:
    """Reject a JPEG that would take too much time or memory; called before its size is reduced.

    A sequential JPEG can have any number of scans as well: one component each, of any length.
    """
    if image.format not in ("JPEG", "MPO"):
        return
    pixels, limit = (
        image.width * image.height,
        _BUDGET_BYTES // (_BYTES_PER_COEFFICIENT * len(image.getbands())),
    )
    if pixels > limit:
        raise ImageError(
            f"{image.width}×{image.height} pixels are over the limit of {limit}; make it smaller"
        )
    if not image.info.get("progressive") and first_scan_components(data) == len(image.getbands()):
        return  # a single scan; counting takes as long as a third of decoding
    # bytes that look like scans are never fewer than the scans, and are counted much faster
    if data.count(_START_OF_SCAN) * pixels <= _MOST_SCANNED_PIXELS:
        return
    scans = count_scans(data)
    if scans * pixels > _MOST_SCANNED_PIXELS:
        raise ImageError(
            f"a JPEG of {scans} scans of {image.width}×{image.height} pixels; at most "
            f"{_MOST_SCANNED_PIXELS // pixels} are decoded at this size: save it as baseline JPEG"
        )


def _check_memory(image: Image.Image) -> None:
    """Reject a photo that would take too much memory, as its header declares it."""
    for what, (width, height) in (("", image.size), ("a TIFF tile of ", _tile_of_tiff(image))):
        pixels = width * height
        limit = min(Image.MAX_IMAGE_PIXELS or pixels, _BUDGET_BYTES // _BYTES_PER_PIXEL)
        if pixels > limit:
            raise ImageError(
                f"{what}{width}×{height} pixels are over the limit of {limit}; make it smaller, or save it "
                "as JPEG, which is reduced while it is decoded"
            )


def _tile_of_tiff(image: Image.Image) -> tuple[int, int]:
    """Return width and height of a TIFF's tiles, (0, 0) without them: libtiff allocates a whole tile."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(TiffImagePlugin.TILEWIDTH, 0)), int(tags.get(TiffImagePlugin.TILELENGTH, 0))


def _check_webp(data: bytes) -> None:
    """Reject a WebP canvas that is too large: Pillow allocates it as soon as it opens the file."""
    width, height = _webp_canvas(data)
    limit = _BUDGET_BYTES // _BYTES_PER_PIXEL_OF_WEBP
    if width * height > limit:
        raise ImageError(f"{width}×{height} pixels are over the limit of {limit}; make it smaller")


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Return width and height as the header declares them; (0, 0) for other formats.

    Source: WebP container specification and RFC 9649, sections 2.7 and 3.4; RFC 6386, section 9.1.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return 0, 0
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _shrink_while_decoding(image: Image.Image, size: tuple[int, int]) -> None:
    """Let the JPEG decoder reduce to 1/2, 1/4 or 1/8, about twice as fast; never below `size`."""
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
    """Lay a transparent image over white, in bands: whole copies would take five times its memory."""
    opaque = Image.new("RGB", image.size)
    for top in range(0, image.height, _BAND_ROWS):
        band = image.crop((0, top, image.width, min(top + _BAND_ROWS, image.height))).convert("RGBA")
        white = Image.new("RGBA", band.size, (255, 255, 255, 255))
        opaque.paste(Image.alpha_composite(white, band).convert("RGB"), (0, top))
    return opaque


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
