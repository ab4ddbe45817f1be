"""Reads photos: the only place where a photo's bytes are read and its digest is computed."""

from __future__ import annotations

import hashlib
import os

from featcache.errors import ImageError
from featcache.files import read_regular, regular_handle

MOST_BYTES = 1 << 30
"""A larger file is not taken for a photo and not read."""

_PIECE_BYTES = 1 << 20


def digest_of(data: bytes) -> bytes:
    """Return the SHA-256 of a file's bytes (32 bytes): the photo's identity, whatever its name or label."""
    return hashlib.sha256(data).digest()


def read_photo(path: str) -> bytes:
    """Return the bytes of a photo.

    Raises
    ------
    ImageError
        It cannot be read, is not a regular file or is larger than `MOST_BYTES`; the message is the reason,
        without the file's name.
    """
    try:
        return read_regular(path, MOST_BYTES)
    except (OSError, ValueError) as error:  # a ValueError: a name with NUL
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def digest_photo(path: str) -> bytes:
    """Return the digest of a photo, read in pieces: memory does not grow with the file.

    Python's file objects take longer than hashing a photo does, so the file is read with system calls.

    Raises
    ------
    OSError
        It is missing, cannot be read, is not a regular file or is larger than `MOST_BYTES`.
    """
    digest = hashlib.sha256()
    handle = regular_handle(path, MOST_BYTES)
    try:
        while piece := os.read(handle, _PIECE_BYTES):
            digest.update(piece)
    finally:
        os.close(handle)
    return digest.digest()
