"""Counts the scans of a JPEG file without decoding them."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A marker: FF, perhaps repeated as padding, and a code. FF 00 is a data byte of the entropy-coded segments.
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
# Start of frame: baseline, extended and progressive, with Huffman or arithmetic coding.
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)


def count_scans(data: bytes) -> int:
    """Count the scans of the first image in a JPEG file, as libjpeg reads it.

    What is inside a segment (an Exif thumbnail) or follows the end of the image (a second image, the video of
    a motion photo) does not count.
    """
    return sum(code == _START_OF_SCAN for code, _ in _segments(data))


def first_scan_components(data: bytes) -> int:
    """Return how many components the first scan of a JPEG file has; 0 where there is no scan.

    libjpeg reads one scan only of a sequential file whose first scan has all components (``jdinput.c``).
    """
    for code, body in _segments(data):
        if code == _START_OF_SCAN:
            return body[0] if body else 0
    return 0


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the code and the body of each marker segment of the first image."""
    at = 2
    while marker := _MARKER.search(data, at):
        code, at = marker[1][0], marker.end()
        if code == _END_OF_IMAGE:
            return
        if _has_length(code):
            length = int.from_bytes(data[at : at + 2], "big")
            yield code, data[at + 2 : at + length]
            at += length


def _has_length(code: int) -> bool:
    # libjpeg searches on right after restart markers (D0 to D7), SOI (D8) and what is below C0
    return 0xC0 <= code < 0xD0 or code > _END_OF_IMAGE


def has_all_scans(data: bytes) -> bool:
    """Whether a JPEG file has scans for all coefficients of all components, in full precision.

    Source: ITU-T T.81, sections B.2.3 and G.1.1. The scans may still be cut off.
    """
    components, missing = 0, dict[int, set[int]]()
    for code, body in _segments(data):
        if code in _FRAMES and len(body) > 5:
            components = body[5]
            missing = {number: set(range(64)) for number in body[6 : 6 + 3 * components : 3]}
        elif code == _START_OF_SCAN and body:
            numbers, last = body[1 : 1 + 2 * body[0] : 2], body[1 + 2 * body[0] :]
            if len(last) == 3 and not last[2] & 15:  # no bits of lower significance follow
                for number in numbers:
                    missing.get(number, set()).difference_update(range(last[0], last[1] + 1))
    return components > 0 and not any(missing.values())
