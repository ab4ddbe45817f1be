"""Which bases of a store are in use, and when each was last used.

``CACHE/BASE/used`` is an empty file. Whoever reads or adds shards holds a shared lock on it, whoever removes
them an exclusive one, and its modification time is the last use. The operating system releases a lock when
its process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from featcache.errors import StoreError

USED_FILE = "used"

_WAIT_SECONDS = 60.0
_STEP_SECONDS = 0.05


def usage_file(base_folder: Path) -> Path:
    """Return the file with the lock and the last use of a base."""
    return base_folder / USED_FILE


def hold(base_folder: Path, may_write: bool = True) -> int | None:
    """Take the shared lock of a base and enter its use; closing the returned file descriptor gives it back.

    Parameters
    ----------
    base_folder : Path
    may_write : bool
        Whether the store may be written; if not, the use is not entered.

    Returns
    -------
    int or None
        None where there is no folder yet, or it cannot be written: then nothing is removed either.

    Raises
    ------
    StoreError
        The base is being removed, and that takes too long.
    """
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(BlockingIOError):
            return _locked(usage_file(base_folder), shared=True, may_write=may_write)
        time.sleep(_STEP_SECONDS)
    raise StoreError(f"{base_folder} is being removed from the store; try again when that is done")


def mark_used(base_folder: Path) -> None:
    """Enter a use of a base without locking it; on a disk that cannot be written nothing happens."""
    handle = _opened(usage_file(base_folder), may_write=True)
    if handle is not None:
        os.close(handle)


@contextlib.contextmanager
def removing(base_folder: Path) -> Iterator[bool]:
    """Hold the exclusive lock of a base; give whether nobody uses the base."""
    path = usage_file(base_folder)
    try:
        handle = _locked(path, shared=False, may_write=True)
    except BlockingIOError:
        yield False
        return
    if handle is None:
        raise StoreError(f"{path} cannot be locked, so nothing is removed; is the store writable?")
    try:
        yield True
    finally:
        os.close(handle)


def last_use(base_folder: Path) -> float | None:
    """Return when a base was last used, in seconds since 1970; None if that is not known."""
    with contextlib.suppress(OSError):
        return usage_file(base_folder).lstat().st_mtime
    return None


def _locked(path: Path, shared: bool, may_write: bool) -> int | None:
    """Return a descriptor that holds the lock; raise a BlockingIOError where another process excludes it."""
    if sys.platform == "win32":
        return None  # open files cannot be removed there
    import fcntl

    handle = _opened(path, may_write and shared, create=may_write)
    if handle is None:
        return None
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink == 0:  # removed together with the base after it was opened
            raise BlockingIOError
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # a file system without locks
        os.close(handle)
        return None
    return handle


def _opened(path: Path, may_write: bool, create: bool = True) -> int | None:
    """Open the file and, with `may_write`, set its time to now; None where that is impossible."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags | (os.O_CREAT if create else 0), 0o666)
    except OSError:
        return None
    if may_write:
        with contextlib.suppress(OSError):
            os.utime(path, follow_symlinks=False)
    return handle
