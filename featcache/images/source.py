"""Reads photos: the only place where a photo's bytes are read and its digest is computed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator

from featcache.errors import ImageError
from featcache.files import regular_handle
from featcache.images.index import FileState
from featcache.images.wording import is_not_unicode, why_unreadable

MOST_BYTES = 1 << 30
"""A larger file is not taken for a photo and not read."""

_PIECE_BYTES = 1 << 20


def digest_of(data: bytes) -> bytes:
    """Return the SHA-256 of a file's bytes (32 bytes): the photo's identity, whatever its name or label."""
    return hashlib.sha256(data).digest()


def read_photo(path: str) -> bytes:
    """Return the bytes of a photo; raises as `read_with_state`."""
    return read_with_state(path)[0]


def read_with_state(path: str) -> tuple[bytes, FileState]:
    """Return the bytes of a photo, and the state that its file had before it was read.

    Python's file objects take longer than reading a photo does, so the file is read with system calls.

    Raises
    ------
    ImageError
        It cannot be read, is not a regular file or is larger than `MOST_BYTES`; the message is the reason,
        without the file's name.
    """
    with _opened(path) as (handle, state):
        pieces = [os.read(handle, state.size + 1)]
        while pieces[-1]:  # one call may give less than the whole
            pieces.append(os.read(handle, _PIECE_BYTES))
    return (pieces[0] if len(pieces) == 2 else b"".join(pieces)), state


def digest_photo(path: str) -> tuple[bytes, FileState]:
    """Return the digest of a photo, read in pieces, and the state that its file had before.

    Raises
    ------
    ImageError
        As `read_with_state`.
    """
    digest = hashlib.sha256()
    with _opened(path) as (handle, state):
        while piece := os.read(handle, _PIECE_BYTES):
            digest.update(piece)
    return digest.digest(), state


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[int, FileState]]:
    """Give a file's descriptor and its state; what goes wrong in the block is the photo's fault."""
    try:
        handle = regular_handle(path, MOST_BYTES)
        try:
            yield handle, FileState.of(os.fstat(handle))
        finally:
            os.close(handle)
    except OSError as error:
        raise ImageError(f"cannot be read: {why_unreadable(path, error)}") from None
    except ValueError as error:  # a name with NUL
        raise ImageError(f"cannot be read: {error}") from None


def why_not_opened(path: str) -> str | None:
    """Return why a photo cannot be read, as far as opening it tells; None if it can."""
    try:
        check_name(path)
        with _opened(path):
            return None
    except ImageError as error:
        return str(error)


def check_name(path: str) -> None:
    """Refuse a name that cannot be stored.

    Raises
    ------
    ImageError
        It is not UTF-8.
    """
    if is_not_unicode(path):
        raise ImageError("its name is not UTF-8; rename it")
