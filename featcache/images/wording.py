"""Names, paths and causes of failures as text."""

from __future__ import annotations

import os
from collections.abc import Sequence


def some(names: Sequence[str], most: int = 5) -> str:
    """Quote the first few names and count the rest."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(map(repr, names[:most])) or "nothing") + more


def is_not_unicode(name: str) -> bool:
    """Whether a name contains bytes that are not UTF-8; HDF5 cannot store it."""
    return any("\ud800" <= letter <= "\udfff" for letter in name)


def printable(path: str) -> str:
    """Return a path as valid UTF-8, with other bytes as escapes."""
    return path.encode("utf-8", "backslashreplace").decode()


def why_unreadable(path: str, error: OSError) -> str:
    """Return why a file or folder could not be opened."""
    if isinstance(error, FileNotFoundError) and os.path.islink(path):  # noqa: PTH114
        return "a link to a file that does not exist"
    return (error.strerror or type(error).__name__).lower()
