"""Regular files are read, whole files are written: aside, flushed to disk, then renamed into place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from featcache.errors import StoreError

# The owner stands in the name, so that what a killed process left can be told from what a living one writes.
_ASIDE = ".aside"


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a name to write to; at the end of the block it is flushed and renamed to `path`.

    When the block raises, nothing is left and what stood at `path` before is still there.

    Raises
    ------
    StoreError
        The folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = _aside(path)
        try:
            yield aside
            flush_to_disk(aside)
            aside.replace(path)
            flush_to_disk(path.parent)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(explain_os_error(error, path)) from error


def write_bytes_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` as a whole file, see `written_whole`."""
    with written_whole(path) as aside:
        aside.write_bytes(data)


@contextlib.contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Give a folder to write to; at the end of the block its files are flushed and it is renamed to `folder`.

    What stood at `folder` before is removed after that. It is still there when the block raises; a process
    that is killed between the two renames leaves it beside, and the next one puts it back.

    Raises
    ------
    StoreError
        The folder cannot be written or the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_left_behind(folder.parent)
        aside, before = _aside(folder), folder.with_name(f".{folder.name}.before")
        _settle(folder, before)
        try:
            aside.mkdir()
            yield aside
            for path in (*aside.rglob("*"), aside):
                flush_to_disk(path)
            if folder.exists():  # a folder with files in it cannot be renamed onto
                folder.rename(before)
            aside.rename(folder)
            flush_to_disk(folder.parent)
        finally:
            _settle(folder, before)
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise StoreError(explain_os_error(error, folder)) from error


def _settle(folder: Path, before: Path) -> None:
    """Remove what a folder replaced, or put it back where nothing took its place."""
    if before.exists() and not folder.exists():
        before.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{os.urandom(4).hex()}{_ASIDE}")


def flush_to_disk(path: Path) -> None:
    """Wait until a file's (or a folder's) content is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; its renames are written through
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # some file systems cannot flush a folder; the rename itself is still whole
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.EBADF, errno.ENOTSUP)):
            raise
    finally:
        os.close(handle)


def remove_left_behind(folder: Path) -> None:
    """Delete the unfinished files and folders of this machine's processes that no longer live."""
    for path in folder.glob(f".*{_ASIDE}"):
        host, pid = _owner(path.name)
        if host == socket.gethostname() and not _lives(pid):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _owner(name: str) -> tuple[str, int]:
    # .<name>.<host>.<pid>.<random>.aside, where the host itself may hold dots
    parts = name.removesuffix(_ASIDE).split(".")
    pid = int(parts[-2]) if len(parts) >= 4 and parts[-2].isdigit() else 0
    host = socket.gethostname()
    return (host, pid) if f".{host}.{pid}." in name else ("", 0)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def explain_os_error(error: OSError, path: Path) -> str:
    """Say what went wrong at `path` and what to do, in one sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: the disk is full; make room or choose another folder with --cache or --run"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path}: the folder cannot be written; choose another one with --cache or --run"
    return f"{path}: {error.strerror or error}"


def read_regular(path: str | os.PathLike[str], at_most: int | None = None) -> bytes:
    """Return the bytes of a regular file.

    Parameters
    ----------
    path : path
        A pipe, a device or a socket is refused: reading one can block for ever or never end.
    at_most : int, optional
        Bytes. A larger file is refused before it is read.

    Raises
    ------
    OSError
        The file is missing, cannot be read, is not a regular file (EINVAL) or is too large (EFBIG).
    """
    # without O_NONBLOCK opening a pipe waits for a writer
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:  # noqa: PTH123
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", os.fspath(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        if at_most is not None and status.st_size > at_most:
            message = f"it has {status.st_size:,} bytes; at most {at_most:,} are read"
            raise OSError(errno.EFBIG, message, os.fspath(path))
        return file.read() if at_most is None else file.read(at_most)


@contextlib.contextmanager
def locked(path: Path, timeout: float = 60.0) -> Iterator[None]:
    """Hold a lock between processes and threads; it ends with its process, however that ends.

    Parameters
    ----------
    path : Path
        The file that changes under the lock; the lock itself is an empty file beside it, ``.NAME.lock``.
    timeout : float
        Seconds to wait for another holder.

    Raises
    ------
    StoreError
        Another process holds the lock all the time, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=timeout)
        lock.acquire()
    except Timeout:
        raise StoreError(
            f"{path}: another process has been writing it for {timeout:g} s; try again"
        ) from None
    except OSError as error:
        raise StoreError(explain_os_error(error, path)) from error
    try:
        yield
    finally:
        lock.release()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
