"""Regular files are read, whole files are written: aside, flushed to disk, then renamed into place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from io import BufferedReader
from pathlib import Path

from featcache.errors import StoreError

# The owner is part of the name, so that what a killed process left can be told from what a living one writes.
_ASIDE = ".aside"
_OWNED = re.compile(r"\.([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}\.aside")
# Whether an owner on another machine or in another container lives cannot be found out.
_ABANDONED_SECONDS = 2 * 24 * 3600
_FREE_NAME = "choose another name"


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a name to write to; at the end of the block it is flushed and renamed to `path`.

    When the block raises, nothing is left and what stood at `path` before is still there. If `path` is a
    symbolic link, the link stays and the file that it points to is replaced.

    Raises
    ------
    StoreError
        The folder cannot be written, the disk is full, or there is something at `path` that is not a
        regular file: devices, pipes and folders are never replaced.
    """
    try:
        target = _link_target(path)
        if os.path.lexists(target) and not target.is_file():
            raise StoreError(f"{path} is not a regular file, and nothing else is replaced; {_FREE_NAME}")
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = _aside(target)
        try:
            yield aside
            flush_to_disk(aside)
            aside.replace(target)
            flush_to_disk(target.parent)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(explain_os_error(error, path)) from error


def write_bytes_whole(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` as a whole file, see `written_whole`."""
    with written_whole(path) as aside:
        aside.write_bytes(data)


def check_file_target(path: Path) -> None:
    """Make sure, before any work, that `written_whole` can write a file there.

    Raises
    ------
    StoreError
        As `written_whole`.
    """
    target = _link_target(path)
    if os.path.lexists(target) and not target.is_file():
        raise StoreError(f"{path} is not a regular file, and nothing else is replaced; {_FREE_NAME}")
    _check_place(target.parent, path)


def check_folder_target(folder: Path) -> None:
    """Make sure, before any work, that files can be written into a folder, which need not be there yet.

    Raises
    ------
    StoreError
        It is something else, or it cannot be made or written.
    """
    _check_place(_link_target(folder), folder)


def _check_place(folder: Path, path: Path) -> None:
    place = next(one for one in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(one))
    if not place.is_dir():
        raise StoreError(f"{path}: {place} is not a folder, and nothing else is replaced; {_FREE_NAME}")
    try:
        # permissions alone are not enough: root passes them, and a disk can be mounted read-only
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise StoreError(explain_os_error(error, path)) from None


@contextlib.contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Give a folder to write to; at the end of the block its files are flushed and it is renamed to `folder`.

    What stood at `folder` before is removed after that. It is still there when the block raises; if a process
    is killed between the two renames, the next one puts it back. If `folder` is a symbolic link, the link
    stays and the folder that it points to is replaced.

    Raises
    ------
    StoreError
        The folder cannot be written, the disk is full, or there is something at `folder` that is not a
        folder.
    """
    try:
        target = _link_target(folder)
        if os.path.lexists(target) and not target.is_dir():
            raise StoreError(f"{folder} is not a folder, and nothing else is replaced; {_FREE_NAME}")
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_left_behind(target.parent)
        aside, before = _aside(target), target.with_name(f".{target.name}.before")
        _settle(target, before)
        try:
            aside.mkdir()
            yield aside
            for path in (*aside.rglob("*"), aside):
                flush_to_disk(path)
            if target.exists():  # a folder with files in it cannot be renamed onto
                target.rename(before)
            aside.rename(target)
            flush_to_disk(target.parent)
        finally:
            _settle(target, before)
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise StoreError(explain_os_error(error, folder)) from error


def _link_target(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _settle(folder: Path, before: Path) -> None:
    """Remove what a folder replaced, or put it back where nothing took its place."""
    if before.exists() and not folder.exists():
        before.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def _aside(path: Path) -> Path:
    pid = os.getpid()
    owner = f"{_process_space()}-{pid}-{_start_time(pid) or 0}-{os.urandom(4).hex()}"
    return path.with_name(f".{path.name[:48]}.{owner}{_ASIDE}")  # file names have at most 255 bytes


@cache
def _process_space() -> str:
    """Name the processes among which a process number is unique: those of this boot and this container.

    Host names do not serve: containers can share one.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux: every process is on its own, and what it leaves is removed by its age
        space = os.urandom(8).hex()
    return hashlib.sha256(space.encode()).hexdigest()[:8]


def _start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot; None if that cannot be found out."""
    try:
        # the name of the program, in parentheses, may have spaces; the start time is field 22
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        return int(fields.split()[19])
    except (OSError, ValueError, IndexError):
        return None


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
    """Delete the unfinished files and folders of processes that have ended.

    Those of another machine or container are deleted when they have not changed for two days.
    """
    for path in folder.glob(f".*{_ASIDE}"):
        with contextlib.suppress(OSError):
            if _is_abandoned(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_abandoned(path: Path) -> bool:
    owner = _OWNED.search(path.name)
    if owner and owner[1] == _process_space():
        return not _lives(int(owner[2]), int(owner[3]))
    return time.time() - path.lstat().st_mtime > _ABANDONED_SECONDS


def _lives(pid: int, started: int) -> bool:
    """Whether the process lives; another one with the same number started at another time."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # a process of another user
    return _start_time(pid) in (started, None)


def explain_os_error(error: OSError, path: Path) -> str:
    """Say what went wrong at `path` and what to do, in one sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: the disk is full; make room or choose another folder with --cache or --run"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path}: the folder cannot be written; choose another one with --cache or --run"
    return f"{path}: {error.strerror or error}"


def regular_handle(path: str | os.PathLike[str], at_most: int | None = None) -> int:
    """Open a regular file for reading and return its file descriptor.

    Parameters
    ----------
    path : path
        A pipe, a device or a socket is refused: reading one can block for ever or never end.
    at_most : int, optional
        Bytes. A larger file is refused.

    Raises
    ------
    OSError
        The file is missing, cannot be read, is not a regular file (EISDIR, EINVAL) or is too large (EFBIG).
    """
    # without O_NONBLOCK opening a pipe waits for a writer
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and (at_most is None or status.st_size <= at_most):
        return handle
    os.close(handle)
    name = os.fspath(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", name)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", name)
    raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes; at most {at_most:,} are read", name)


def open_regular(path: str | os.PathLike[str], at_most: int | None = None) -> BufferedReader:
    """Open a regular file for reading; see `regular_handle`."""
    return open(regular_handle(path, at_most), "rb")


def read_regular(path: str | os.PathLike[str], at_most: int | None = None) -> bytes:
    """Return the bytes of a regular file; see `regular_handle`."""
    with open_regular(path, at_most) as file:
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
    from filelock import FileLock, Timeout  # most commands hold no lock, and need not wait for its import

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
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
