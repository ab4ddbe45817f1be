"""Counts the scans of a JPEG file without decoding them."""

from __future__ import annotations

import re

# A marker: FF, perhaps repeated as padding, and a code. FF 00 is a data byte of the entropy-coded segments.
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA


def count_scans(data: bytes) -> int:
    """Count the scans of the first image in a JPEG file, as libjpeg reads it.

    What is inside a segment (an Exif thumbnail) or follows the end of the image (a second image, the video of
    a motion photo) does not count.
    """
    at, scans = 2, 0
    while marker := _MARKER.search(data, at):
        code, at = marker[1][0], marker.end()
        if code == _END_OF_IMAGE:
            break
        if _has_length(code):
            scans += code == _START_OF_SCAN
            at += int.from_bytes(data[at : at + 2], "big")
    return scans


def first_scan_components(data: bytes) -> int:
    """Return how many components the first scan of a JPEG file has; 0 where there is no scan.

    libjpeg reads one scan only of a sequential file whose first scan has all components (``jdinput.c``).
    """
    at = 2
    while marker := _MARKER.search(data, at):
        code, at = marker[1][0], marker.end()
        if code == _END_OF_IMAGE:
            break
        if code == _START_OF_SCAN:
            return data[at + 2] if len(data) > at + 2 else 0
        if _has_length(code):
            at += int.from_bytes(data[at : at + 2], "big")
    return 0


def _has_length(code: int) -> bool:
    # libjpeg searches on right after restart markers (D0 to D7), SOI (D8) and what is below C0
    return 0xC0 <= code < 0xD0 or code > _END_OF_IMAGE
