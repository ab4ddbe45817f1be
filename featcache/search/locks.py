"""File locks that the operating system releases when their process ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from featcache.errors import StoreError
from featcache.files import explain_os_error


def take(path: Path) -> FileLock:
    """Wait for the lock of a file, take it and return it; its ``release`` gives it back.

    Raises
    ------
    StoreError
        The file cannot be written, or its file system has no locks.
    """
    lock = FileLock(path)
    with _explained(path):
        lock.acquire()
    return lock


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of a file.

    Raises
    ------
    StoreError
        As `take`.
    """
    lock = take(path)
    try:
        yield
    finally:
        lock.release()


def is_free(path: Path) -> bool:
    """Whether no process holds the lock of a file.

    Raises
    ------
    StoreError
        As `take`.
    """
    if not path.exists():
        return True
    lock = FileLock(path)
    try:
        with _explained(path):
            lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except Timeout:  # it is an OSError, too
        raise
    except (OSError, NotImplementedError) as error:
        reason = explain_os_error(error, path) if isinstance(error, OSError) else f"{path}: {error}"
        raise StoreError(f"{reason}; choose another --run folder") from None
