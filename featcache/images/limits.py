"""Refuses photos that would take too much memory or time, before either is spent on them."""

from __future__ import annotations

from PIL import Image, TiffImagePlugin

from featcache.errors import ImageError
from featcache.images.scans import count_scans, first_scan_components

# Bytes per pixel at the peak of decoding: the decoded photo, a turned copy and the RGB copy, four bytes each.
_BYTES_PER_PIXEL = 12
# By format, what its library keeps beside that, as measured: libwebp a second canvas, libavif and libheif the
# planes and their own RGB copy, OpenJPEG 4 bytes for each sample of a tile. Of 16 bit colour there are two
# images and their sum.
_OF_FORMAT = {"WEBP": 17, "AVIF": 20, "HEIF": 20, "JPEG2000": 32, "16 bit": 30}
# Of a JPEG with several scans, libjpeg keeps all coefficients of all components, however far it is reduced.
_BYTES_PER_COEFFICIENT = 2
BUDGET_BYTES = 1200 << 20
# Each scan of a JPEG is a pass over all pixels, also of one that is reduced while it is decoded.
# A photo of 12 megapixels has about ten scans; this many pixels take 2 s.
_MOST_SCANNED_PIXELS = 2_000_000_000
_START_OF_SCAN = b"\xff\xda"
# Pillow reads PPM files of text value by value in Python: a second for each million.
_MOST_SLOW_VALUES = 4_000_000


def check_header(kind: str, data: bytes, max_pixels: int) -> None:
    """Refuse a WebP or JPEG 2000 canvas that is too large: it is allocated before Pillow tells its size.

    Raises
    ------
    ImageError
    """
    if kind == "WEBP":
        _check_size(kind, *_webp_canvas(data), max_pixels)
    elif kind == "JPEG2000":
        width, height, components = _jpeg2000_canvas(data)
        _check_size(kind, width, height * max(1, components // 4), max_pixels)


def check_memory(image: Image.Image, max_pixels: int, both_bytes: bool = False) -> None:
    """Refuse a photo that would take too much memory, as its header declares it.

    Parameters
    ----------
    image : Image
        Before it is loaded.
    max_pixels : int
        Of three channels of 8 bits; other photos may have as many as take the same memory.
    both_bytes : bool
        Whether both bytes of 16 bit colour are read.

    Raises
    ------
    ImageError
    """
    kind = "16 bit" if both_bytes else image.format or ""
    _check_size(kind, *image.size, max_pixels)
    _check_size(kind, *_tile_of_tiff(image), max_pixels, "a TIFF tile of ")
    if image.format == "PPM":
        _check_ppm(image)


def check_jpeg(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse a JPEG that would take too much time or memory; called before its size is reduced.

    A sequential JPEG can have any number of scans as well: one component each, of any length.

    Raises
    ------
    ImageError
    """
    if image.format != "JPEG":
        return
    pixels, components = image.width * image.height, len(image.getbands())
    if not image.info.get("progressive") and first_scan_components(data) == components:
        scans = 1  # counting takes as long as a third of decoding
    else:
        limit = _budget(max_pixels) // (_BYTES_PER_COEFFICIENT * components)
        if pixels > limit:
            needed = pixels * _BYTES_PER_COEFFICIENT * components // _BYTES_PER_PIXEL + 1
            raise ImageError(_too_large(image.size, limit, needed))
        # bytes that look like scans are never fewer than the scans, and are counted much faster
        scans = data.count(_START_OF_SCAN)
        if scans * pixels > _MOST_SCANNED_PIXELS:
            scans = count_scans(data)
    if scans * pixels > _MOST_SCANNED_PIXELS:
        raise ImageError(
            f"a JPEG of {scans} scans of {image.width}×{image.height} pixels; at most "
            f"{_MOST_SCANNED_PIXELS // pixels} are decoded at this size: save it as baseline JPEG"
        )


def _budget(max_pixels: int) -> int:
    return max(BUDGET_BYTES, _BYTES_PER_PIXEL * max_pixels)


def _check_size(kind: str, width: int, height: int, max_pixels: int, what: str = "") -> None:
    pixels, per_pixel = width * height, _OF_FORMAT.get(kind, _BYTES_PER_PIXEL)
    limit = min(max_pixels, _budget(max_pixels) // per_pixel)
    if pixels > limit:
        in_memory = -(-pixels * per_pixel // _BYTES_PER_PIXEL)
        needed = pixels if per_pixel * pixels <= BUDGET_BYTES else in_memory
        raise ImageError(_too_large((width, height), limit, needed, what))


def _too_large(size: tuple[int, int], limit: int, needed: int, what: str = "") -> str:
    gigabytes = needed * _BYTES_PER_PIXEL / 1e9
    return (
        f"{what}{size[0]}×{size[1]} pixels are over the limit of {limit}; set base.max_pixels = {needed} "
        f"where {gigabytes:.1f} GB of memory for each core are free, or make it smaller"
    )


def _check_ppm(image: Image.Image) -> None:
    codec = next(iter(getattr(image, "tile", ())), ("",))[0]
    values = image.width * image.height * len(image.getbands())
    if codec == "ppm_plain" and values > _MOST_SLOW_VALUES:
        raise ImageError(
            f"a PPM of {image.width}×{image.height} pixels as text takes too long to read; save it as PNG"
        )


def _tile_of_tiff(image: Image.Image) -> tuple[int, int]:
    """Return width and height of a TIFF's tiles, (0, 0) without them: libtiff allocates a whole tile."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(TiffImagePlugin.TILEWIDTH, 0)), int(tags.get(TiffImagePlugin.TILELENGTH, 0))


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Return width and height as the header declares them.

    Source: WebP container specification and RFC 9649, sections 2.7 and 3.4; RFC 6386, section 9.1.
    """
    if len(data) < 30:
        return 0, 0
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _jpeg2000_canvas(data: bytes) -> tuple[int, int, int]:
    """Return width, height and number of components of the image or of a tile, whichever is larger.

    Source: ISO/IEC 15444-1, annex A.5.1 (SIZ marker segment).
    """
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 42:
        return 0, 0, 0
    right, bottom, left, top, tile_width, tile_height = (
        int.from_bytes(data[place : place + 4], "big") for place in range(at + 8, at + 32, 4)
    )
    components = int.from_bytes(data[at + 40 : at + 42], "big")
    # OpenJPEG clips tiles to the image
    return max(0, right - left), max(0, bottom - top), components if tile_width and tile_height else 0
