"""What a TIFF file says of itself, read without Pillow: which refuses some files that can be read.

Source: TIFF Revision 6.0 (Adobe, 1992) and the BigTIFF design of libtiff.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

PREFIXES = (b"MM\x00\x2a", b"II\x2a\x00", b"MM\x2a\x00", b"II\x00\x2a", b"MM\x00\x2b", b"II\x2b\x00")

BITS, PHOTOMETRIC, SAMPLES, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 262, 277, 338, 339
NEW_SUBFILE_TYPE, SUB_IFDS, _DNG_VERSION = 254, 330, 50706
# BYTE, SHORT, LONG and IFD
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I"}
_REDUCED = 1
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _COLOUR_FILTER = 0, 1, 32803
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_MOST_SAMPLES = 1024


@dataclass(frozen=True)
class TiffFacts:
    """What the first page of a TIFF file holds.

    Attributes
    ----------
    samples : int
        Per pixel.
    bits : int
        Per sample.
    signed, floating : bool
        What the samples are; neither means unsigned integers.
    white_is_zero : bool
        0 stands for white.
    extra : tuple of int or None
        Meaning of the samples beyond the colours; None where the file does not say.
    raw : str
        Kind of RAW photo of a camera, of which the first page is a thumbnail; empty for other files.
    """

    samples: int
    bits: int
    signed: bool
    floating: bool
    white_is_zero: bool
    extra: tuple[int, ...] | None
    raw: str


@dataclass(frozen=True)
class _Entry:
    at: int  # of the value, in the file
    values: tuple[int, ...]


def facts_of(data: bytes) -> TiffFacts:
    """Return what a TIFF file says of its first page; defaults where it says nothing or is damaged."""
    tags = _tags(data)
    kind = _first(tags, SAMPLE_FORMAT, _UNSIGNED)
    return TiffFacts(
        samples=_first(tags, SAMPLES, 1),
        bits=_first(tags, BITS, 1),
        signed=kind == _SIGNED,
        floating=kind == _FLOAT,
        white_is_zero=_first(tags, PHOTOMETRIC, _BLACK_IS_ZERO) == _WHITE_IS_ZERO,
        extra=tags[EXTRA_SAMPLES].values if EXTRA_SAMPLES in tags else None,
        raw=_raw_kind(data, tags),
    )


def _raw_kind(data: bytes, tags: dict[int, _Entry]) -> str:
    if data[8:10] == b"CR":
        return "Canon CR2"
    if _DNG_VERSION in tags:
        return "DNG"
    thumbnail = SUB_IFDS in tags and _first(tags, NEW_SUBFILE_TYPE, 0) & _REDUCED
    mosaic = _first(tags, PHOTOMETRIC, _BLACK_IS_ZERO) == _COLOUR_FILTER
    return "NEF, ARW, PEF or the like" if thumbnail or mosaic else ""


def readable(data: bytes) -> bytes:
    """Return the file as Pillow can read it: grey of more than 8 bits is declared as BlackIsZero.

    Pillow either refuses WhiteIsZero of such files or does not invert it; `featcache.images.colour` does.
    """
    tags = _tags(data)
    deep = _first(tags, BITS, 1) > 8 and _first(tags, SAMPLES, 1) == 1
    if not deep or _first(tags, PHOTOMETRIC, _BLACK_IS_ZERO) != _WHITE_IS_ZERO:
        return data
    at = tags[PHOTOMETRIC].at
    return data[:at] + struct.pack(_order(data) + "H", _BLACK_IS_ZERO) + data[at + 2 :]


def _first(tags: dict[int, _Entry], tag: int, default: int) -> int:
    return tags[tag].values[0] if tag in tags and tags[tag].values else default


def _order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def _tags(data: bytes) -> dict[int, _Entry]:
    """Return the entries of integers in the first directory; empty where it is damaged."""
    try:
        return dict(_entries(data))
    except struct.error:
        return {}


def _entries(data: bytes) -> Iterator[tuple[int, _Entry]]:
    order, big = _order(data), b"\x2b" in data[2:4]
    offset, size, inline = ("Q", 20, 8) if big else ("I", 12, 4)
    (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
    counted = order + ("Q" if big else "H")
    (entries,) = struct.unpack_from(counted, data, at)
    at += struct.calcsize(counted)
    for place in range(at, at + size * min(entries, 1000), size):
        tag, kind, count = struct.unpack_from(order + "HH" + offset, data, place)
        if kind not in _INTEGERS or not 0 < count <= _MOST_SAMPLES:
            continue
        value, values = place + size - inline, f"{order}{count}{_INTEGERS[kind]}"
        if struct.calcsize(values) > inline:
            (value,) = struct.unpack_from(order + offset, data, value)
        yield tag, _Entry(value, struct.unpack_from(values, data, value))
