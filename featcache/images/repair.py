"""Sound copies of files that libraries take for damaged: limits of theirs, or a missing end."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from featcache.images.scans import has_all_scans

_END_OF_IMAGE = b"\xff\xd9"
# Nothing, and what an entropy decoder takes for coefficients; the two differ in every bit.
_FILLERS = (b"", b"\x55" * 1000, b"\xaa" * 1000)
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def sound_copy(kind: str, data: bytes, load: Callable[[bytes], Image.Image]) -> bytes | None:
    """Return a copy of a file that can be decoded as it is meant; None where the file itself is damaged.

    Parameters
    ----------
    kind : str
        Format of the file.
    data : bytes
        What could not be decoded.
    load : callable
        Decodes a copy.

    Raises
    ------
    Exception
        As `load`.
    """
    if kind == "PNG":
        copy = without_text(data)
        return copy if copy != data else None
    cut = data.rstrip(b"\xff")  # perhaps the first half of the end
    return cut + _END_OF_IMAGE if kind == "JPEG" and _is_complete(cut, load) else None


def _is_complete(data: bytes, load: Callable[[bytes], Image.Image]) -> bool:
    """Whether a JPEG that does not end as it should holds all its pixels.

    libjpeg fills in what is missing without an error, so it is asked several times, with different bytes at
    the end: pixels that depend on them are missing.
    """
    if not has_all_scans(data):
        return False
    first, *others = (np.asarray(load(data + filler + _END_OF_IMAGE)) for filler in _FILLERS)
    return all(np.array_equal(first, other) for other in others)


def without_text(data: bytes) -> bytes:
    """Return a PNG without texts and colour profile, which Pillow limits in size."""
    return data[:8] + b"".join(chunk for name, chunk in _chunks(data) if name not in _TEXT_CHUNKS)


def profile_of_png(data: bytes, most: int = 16 << 20) -> bytes | None:
    """Return the ICC profile of a PNG, up to `most` bytes of it.

    Source: Portable Network Graphics specification, third edition, section 11.3.2.3.
    """
    for name, chunk in _chunks(data):
        if name == b"iCCP":
            _, _, packed = chunk[8:-4].partition(b"\0")
            try:
                return zlib.decompressobj().decompress(packed[1:], most)
            except zlib.error:
                return None
        if name == b"IDAT":
            break
    return None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name of each chunk, and the whole of it."""
    at = 8
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at:end]
        at = end
