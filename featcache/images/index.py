"""Digests known by path, so that photos which have not changed are not read again.

A digest is used only while size, modification time, change time, inode and device of the file are what they
were, and if the file was older than the reading by `MARGIN_NS`: a file that is changed twice within the
resolution of its file system's clock can look the same ("racy git", Documentation/technical/racy-git.txt of
git). The change time cannot be set back by ``touch``; a file swapped by a rename has another inode.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

MARGIN_NS = 2_000_000_000
"""Longest step of a file system's clock, in nanoseconds: two seconds, that of FAT."""

_WAIT_SECONDS = 30.0
_LARGEST = 2**63 - 1  # what SQLite can hold
_WRITTEN_AT_ONCE = 500

# One row per file, found by its folder: a folder's photos are one query.
_TABLE = """
CREATE TABLE IF NOT EXISTS digests (
    folder BLOB NOT NULL, name BLOB NOT NULL,
    size INTEGER NOT NULL, modified INTEGER NOT NULL, changed INTEGER NOT NULL,
    inode INTEGER NOT NULL, device INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (folder, name)
) WITHOUT ROWID
"""
_SELECT = "SELECT name, size, modified, changed, inode, device, digest FROM digests WHERE folder = ?"
_INSERT = "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class FileState(NamedTuple):
    """What a file's system says of it without reading it; equal states are taken to have equal bytes.

    Attributes
    ----------
    size : int
        Bytes.
    modified, changed : int
        Nanoseconds since 1970.
    inode, device : int
        Their lower 63 bits.
    """

    size: int
    modified: int
    changed: int
    inode: int
    device: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """Return the state that `os.stat` or `os.fstat` describes."""
        inode, device = status.st_ino & _LARGEST, status.st_dev & _LARGEST
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode, device)

    def settled_at(self, moment: int) -> bool:
        """Whether a change after `moment` (ns) is sure to give the file other times."""
        return max(self.modified, self.changed) + MARGIN_NS < moment


Entry = tuple[str, FileState, bytes]
"""A file that was read: its path, the state that it had before, its digest."""


class DigestIndex:
    """A table of digests in a SQLite file that processes share.

    Parameters
    ----------
    path : Path or None
        Made when a digest is first recorded. A file that is damaged or cannot be opened is an empty index: it
        is a cache, and what it holds can be computed again. None is an index that keeps nothing.
    note : callable, optional
        Called with one sentence where the index cannot be used or written.
    """

    def __init__(self, path: Path | None, note: Callable[[str], None] = lambda _: None) -> None:
        self._path = path
        self._note = note
        self._connection: sqlite3.Connection | None = None
        self._pending: list[tuple[Any, ...]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what was recorded and close the file."""
        self._write()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def find(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return the digests of the files whose state is what was recorded, by path.

        Parameters
        ----------
        paths : iterable of str
            Files that are missing are left out, as are those that have changed.
        """
        found: dict[str, bytes] = {}
        if self._path is None or not self._path.exists():
            return found
        for folder, in_folder in _by_folder(paths).items():
            recorded = self._recorded(_key(folder))
            for name, path in in_folder if recorded else ():
                row = recorded.get(name)
                if row is not None and row[1:-1] == _state_of(path):
                    found[path] = row[-1]
        return found

    def record(self, digests: Iterable[Entry], moment: int) -> None:
        """Keep digests of files that were read; a file that has only just changed is left out.

        They are written some hundreds at a time, and when the index is closed.

        Parameters
        ----------
        digests : iterable of (path, FileState, digest)
            The state is that of the open file before it was read.
        moment : int
            When the reading began, in nanoseconds since 1970.
        """
        if self._path is None:
            return
        self._pending += [
            (_key(os.path.dirname(path)), os.fsencode(os.path.basename(path)), *state, digest)  # noqa: PTH119, PTH120
            for path, state, digest in digests
            if state.settled_at(moment)
        ]
        if len(self._pending) >= _WRITTEN_AT_ONCE:
            self._write()

    def _write(self) -> None:
        rows, self._pending = self._pending, []
        if rows and self._path is not None:
            with self._errors_noted("written"), self._opened() as connection, connection:
                connection.executemany(_INSERT, rows)

    def _recorded(self, folder: bytes) -> dict[str, tuple[Any, ...]]:
        """Return the rows of a folder's files by name: name, state and digest in one tuple."""
        recorded: dict[str, tuple[Any, ...]] = {}
        if self._path is not None:
            with self._errors_noted("read"), self._opened() as connection:
                rows = connection.execute(_SELECT, (folder,))
                recorded = {_text(row[0]): row for row in rows if len(row[-1]) == 32}
        return recorded

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        assert self._path is not None
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(_TABLE)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        yield self._connection

    @contextlib.contextmanager
    def _errors_noted(self, what: str) -> Iterator[None]:
        """Continue without an index that cannot be used; one that is damaged is removed."""
        path = self._path
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:  # locked, read-only, no room, no permission
            self._path = None
            self._note(f"the index of digests {path} cannot be {what} ({error}); photos are read again")
        except (sqlite3.DatabaseError, TypeError) as error:
            self._disconnect()
            for ending in ("", "-wal", "-shm"):
                Path(f"{path}{ending}").unlink(missing_ok=True)
            self._note(f"the index of digests {path} is damaged ({error}); photos are read again")


def _key(folder: str) -> bytes:
    return os.fsencode(os.path.abspath(folder))  # noqa: PTH100


def _by_folder(paths: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Return name and path of each file, by folder."""
    by_folder: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in paths:
        name = path.rpartition(os.sep)[2]
        by_folder[path[: len(path) - len(name)]].append((name, path))
    return by_folder


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")  # `os.fsdecode` takes twice as long


def _state_of(path: str) -> tuple[int, ...] | None:
    try:
        return FileState.of(os.stat(path))  # noqa: PTH116
    except (OSError, ValueError):
        return None
