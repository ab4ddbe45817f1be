"""A lock that the system takes away from a process that ends, however it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from featcache.errors import StoreError
from featcache.files import explain_os_error

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int, wait: bool) -> None:
        msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(handle: int, wait: bool) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


class FileLock:
    """Exclusive possession of a file, among threads and processes; use it as a context manager, too.

    Parameters
    ----------
    path : Path
        It is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock and return True; without `wait`, return False when somebody has it.

        Raises
        ------
        StoreError
            The file cannot be written, or its file system has no locks.
        """
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(explain_os_error(error, self._path)) from None
        try:
            _lock(handle, wait)
        except OSError as error:
            os.close(handle)
            if not wait and isinstance(error, BlockingIOError | PermissionError):
                return False
            raise StoreError(f"{explain_os_error(error, self._path)}; choose another --run folder") from None
        self._handle = handle
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
