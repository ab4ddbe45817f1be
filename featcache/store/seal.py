"""The seal of a feature file: a SHA-256 in its first 512 bytes, compared before HDF5 parses the rest.

HDF5 has no checksum for attributes and strings, and crashes on some damaged files. But it skips a *user
block* at the start of a file. Ours is text (``head -c 512 features.h5``), padded with zeros::

    featcache features 2
    sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    extent 40960 8388608

The hash covers these lines and every byte after the user block, except the extents ``OFFSET BYTES``. Those
hold the features of a packed file, which may have many gigabytes; hashes of their blocks are in the part
that is covered, and are compared when a block is read.

Files of format 1 have no user block: they begin with HDF5's own signature.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from typing import BinaryIO

from featcache.store.format import FEATURE_FORMAT

USER_BLOCK = 512
MAGIC = b"featcache features "
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_LINES = re.compile(
    rb"featcache features (\d{1,9})\nsha256 ([0-9a-f]{64})\n((?:extent \d{1,19} \d{1,19}\n)*)\0*"
)
_PIECE = 1 << 20

Extent = tuple[int, int]


class SealError(ValueError):
    """The bytes are not those that were sealed."""


def seal(file: BinaryIO, extents: Sequence[Extent] = (), number: int = FEATURE_FORMAT) -> None:
    """Write the user block of a file that is complete but for it.

    Parameters
    ----------
    file : binary file, open for reading and writing
    extents : sequence of (offset, bytes)
        Parts that the hash does not cover, in ascending order.
    number : int
        The format number.
    """
    block = _user_block(number, _sha256(file, extents, number), extents)
    file.seek(0)
    file.write(block)


def format_of(block: bytes) -> int | None:
    """Return the format number that a user block begins with, or None if it is not a user block of ours."""
    found = re.match(re.escape(MAGIC) + rb"(\d{1,9})\n", block)
    return int(found[1]) if found else None


def check_seal(file: BinaryIO) -> None:
    """Compare a file's bytes with its seal; one sequential read of what the seal covers.

    Raises
    ------
    SealError
        They have changed.
    """
    file.seek(0)
    block = file.read(USER_BLOCK)
    found = _LINES.fullmatch(block)
    if found is None:
        raise SealError("its first 512 bytes have changed")
    words = [line.split() for line in found[3].splitlines()]
    extents = [(int(offset), int(length)) for _, offset, length in words]
    number = int(found[1])
    if block != _user_block(number, _sha256(file, extents, number), extents):
        raise SealError("its bytes have changed since it was written")


def _user_block(number: int, digest: str, extents: Sequence[Extent]) -> bytes:
    lines = [f"{MAGIC.decode()}{number}", f"sha256 {digest}", *(f"extent {at} {n}" for at, n in extents)]
    block = ("\n".join(lines) + "\n").encode().ljust(USER_BLOCK, b"\0")
    if len(block) > USER_BLOCK:
        raise ValueError(f"{len(extents)} extents do not fit into the user block")
    return block


def _sha256(file: BinaryIO, extents: Sequence[Extent], number: int) -> str:
    size = file.seek(0, os.SEEK_END)
    digest = hashlib.sha256(_user_block(number, "", extents))
    at = USER_BLOCK
    for start, length in [*extents, (size, 0)]:
        if not at <= start <= start + length <= size:
            raise SealError("it was cut or its first 512 bytes have changed")
        _update(digest, file, at, start)
        at = start + length
    return digest.hexdigest()


def _update(digest: hashlib._Hash, file: BinaryIO, start: int, stop: int) -> None:
    file.seek(start)
    while start < stop:
        piece = file.read(min(_PIECE, stop - start))
        if not piece:
            raise SealError("it was cut while it was read")
        digest.update(piece)
        start += len(piece)
