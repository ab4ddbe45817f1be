"""How names, paths and failures are put into words."""

from __future__ import annotations

import os
from collections.abc import Sequence


def some(names: Sequence[str], most: int = 5) -> str:
    """Name the first few, quoted, and count the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(map(repr, names[:most])) or "nothing") + more


def is_not_unicode(name: str) -> bool:
    """Whether a name holds bytes that are no text; it could be stored neither in HDF5 nor in JSON."""
    return any("\ud800" <= letter <= "\udfff" for letter in name)


def printable(path: str) -> str:
    """Return a path that can be printed and stored, whatever bytes are in its name."""
    return path.encode("utf-8", "backslashreplace").decode()


def why_unreadable(path: str, error: OSError) -> str:
    """Say why a file or folder could not be opened, in a few words."""
    if isinstance(error, FileNotFoundError) and os.path.islink(path):  # noqa: PTH114
        return "a link to a file that does not exist"
    return (error.strerror or type(error).__name__).lower()
