"""Small photos in many formats, made by the test that reads them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(height: int = 32, width: int = 48) -> Image.Image:
    """An image that tells its corners apart: red, green / blue, white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    pixels[height // 2 :, width // 2 :] = WHITE
    return Image.fromarray(pixels)


def encode(image: Image.Image, format: str, **options) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def raw_png(width: int, height: int, bits: int, colour: int, rows: bytes = b"", extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def deep_png(values: np.ndarray, extra: bytes = b"") -> bytes:
    """A PNG of 16 bits: grey (h, w), grey with alpha (h, w, 2), RGB (h, w, 3) or RGBA (h, w, 4)."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2] if values.ndim == 3 else 1]
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    return raw_png(values.shape[1], values.shape[0], 16, colour, rows, extra)


def tiff(values: np.ndarray, photometric: int, order: str = "<", **tags: int | tuple[int, ...]) -> bytes:
    """An uncompressed TIFF of one strip; `tags` are further ones by number, as ``t338=0``."""
    height, width = values.shape[:2]
    samples = values.shape[2] if values.ndim == 3 else 1
    bits = 8 * values.itemsize
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    known: dict[int, int | tuple[int, ...]] = {
        256: width, 257: height, 258: (bits,) * samples, 259: 1, 262: photometric, 277: samples, 278: height,
        339: (kind,) * samples,
    }  # fmt: skip
    known |= {int(name[1:]): value for name, value in tags.items()} | {273: 0, 279: len(pixels)}
    at = 8 + 2 + 12 * len(known) + 4
    apart, entries = b"", b""
    for tag, value in sorted(known.items()):
        one = value if isinstance(value, tuple) else (value,)
        if tag == 273:
            one = (0xFFFFFFFF,)  # known when all else is
        letter = "I" if tag in (273, 279) else "H"
        packed = struct.pack(f"{order}{len(one)}{letter}", *one)
        if len(packed) > 4:
            packed, apart = struct.pack(order + "I", at + len(apart)), apart + packed
        entries += struct.pack(order + "HHI", tag, 4 if letter == "I" else 3, len(one)) + packed.ljust(
            4, b"\0"
        )
    entries = entries.replace(b"\xff" * 4, struct.pack(order + "I", at + len(apart)))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(known))
    return head + entries + bytes(4) + apart + pixels
