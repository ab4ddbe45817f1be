"""What a store holds, base by base, and removing bases that are no longer used.

Only files that the store wrote are removed, and no link is followed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from featcache.errors import FeatcacheError, StoreError, did_you_mean
from featcache.files import explain_os_error, read_regular, remove_left_behind
from featcache.store import shards
from featcache.store.format import BASE_FILE, INDEX_FILE, SHARD_FOLDER
from featcache.store.usage import last_use, removing

_BASE_FOLDER = re.compile(r"(?P<base>.+)-[0-9a-f]{16}")
_OWN_FILES = re.compile(r"base\.json|verified\.json|openvino\.zip|used")
_OWN_SHARDS = re.compile(r"[0-9a-f]{32}\.(h5|damaged)")
_LARGEST_JSON = 64 << 20


@dataclass(frozen=True)
class CachedBase:
    """A base in the store.

    Attributes
    ----------
    name : str
        Name of its folder.
    base : str
        Name of the network.
    image_size : list of int, or None
        Height and width in pixels; None where no features were stored yet.
    photos, rows : int
        Different photos, and rows: one for each photo and view.
    bytes : int
        Size of its files.
    last_used : float
        Seconds since 1970: the last extraction or prediction; if earlier versions did that, when a file was
        last written.
    unreadable : int
        Shards that cannot be read; their rows are not counted.
    """

    name: str
    base: str
    image_size: list[int] | None
    photos: int
    rows: int
    bytes: int
    last_used: float
    unreadable: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON-ready data; the last use in ISO 8601, UTC."""
        return {
            "name": self.name,
            "base": self.base,
            "image_size": self.image_size,
            "photos": self.photos,
            "rows": self.rows,
            "bytes": self.bytes,
            "last_used": datetime.fromtimestamp(self.last_used, UTC).isoformat(timespec="seconds"),
            "unreadable": self.unreadable,
        }


@dataclass(frozen=True)
class Contents:
    """What a store holds.

    Attributes
    ----------
    folder : Path
    bases : tuple of CachedBase
        The last used first.
    index_bytes : int
        Size of the index of the photos' digests; it is never removed.
    """

    folder: Path
    bases: tuple[CachedBase, ...]
    index_bytes: int

    @property
    def bytes(self) -> int:
        """Size of all bases and the index."""
        return sum(base.bytes for base in self.bases) + self.index_bytes

    def to_json(self) -> dict[str, Any]:
        """Return the contents as JSON-ready data."""
        return {
            "cache": str(self.folder),
            "bases": [base.to_json() for base in self.bases],
            "index_bytes": self.index_bytes,
            "bytes": self.bytes,
        }


@dataclass(frozen=True)
class Removal:
    """What `prune` removed.

    Attributes
    ----------
    removed : tuple of CachedBase
    in_use : tuple of CachedBase
        Chosen, but in use by a process, or used since they were listed: they stay.
    bytes : int
        Size of the files that were removed.
    left : tuple of Path
        Files and links in the removed bases' folders that are not of the store: they stay.
    """

    removed: tuple[CachedBase, ...] = ()
    in_use: tuple[CachedBase, ...] = ()
    bytes: int = 0
    left: tuple[Path, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        return {
            "removed": [base.to_json() for base in self.removed],
            "in_use": [base.to_json() for base in self.in_use],
            "bytes": self.bytes,
            "left": list(map(str, self.left)),
        }


# ---- listing ---------------------------------------------------------------------------------------------


def list_cache(folder: Path) -> Contents:
    """Return what the store in `folder` holds; a folder that does not exist holds nothing.

    Raises
    ------
    StoreError
        The folder cannot be read.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        entries = []
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror or error}") from None
    bases = [base for entry in entries if (base := _base_of(entry)) is not None]
    bases.sort(key=lambda base: (-base.last_used, base.name))
    index = sum(_size(entry) for entry in entries if entry.name.startswith(INDEX_FILE))
    return Contents(folder, tuple(bases), index)


def _base_of(entry: os.DirEntry[str]) -> CachedBase | None:
    """Return the base in a folder of the store; None for another folder, a file or a link."""
    named = _BASE_FOLDER.fullmatch(entry.name)
    if named is None or not entry.is_dir(follow_symlinks=False):
        return None
    folder = Path(entry.path)
    files = list(_own_files(folder))
    facts = _facts(folder)
    rows, digests, unreadable = 0, set[bytes](), 0
    for path in files:
        if path.parent.name == SHARD_FOLDER and shards.is_shard_name(path.name):
            try:
                keys = shards.read_keys(path, facts).keys()
            except FeatcacheError:
                unreadable += 1
                continue
            rows += len(keys)
            digests.update(key.digest for key in keys)
    statuses = [status for path in files if (status := _status(path)) is not None]
    written = max((status.st_mtime for status in statuses), default=entry.stat().st_mtime)
    return CachedBase(
        entry.name,
        named["base"],
        facts.get("image_size"),
        len(digests),
        rows,
        sum(status.st_size for status in statuses),
        last_use(folder) or written,
        unreadable,
    )


def _facts(folder: Path) -> dict[str, Any]:
    """Return what ``base.json`` says that features are made with; nothing where it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        facts = json.loads(read_regular(folder / BASE_FILE, _LARGEST_JSON))
        if isinstance(facts, dict):
            return {key: value for key, value in facts.items() if key != "format"}
    return {}


def _own_files(folder: Path) -> Iterator[Path]:
    """Yield the regular files of a base that the store wrote: shards first, the one with the lock last."""
    shard_folder = folder / SHARD_FOLDER
    if not shard_folder.is_symlink():
        yield from _regular_files(shard_folder, _OWN_SHARDS)
    yield from _regular_files(folder, _OWN_FILES)


def _regular_files(folder: Path, names: re.Pattern[str]) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if names.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def _size(entry: os.DirEntry[str]) -> int:
    status = _status(Path(entry.path))
    return 0 if status is None else status.st_size


def _status(path: Path) -> os.stat_result | None:
    """Return the status of a regular file; None for a link, or a file that was removed in this moment."""
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        return status if stat.S_ISREG(status.st_mode) else None
    return None


# ---- removing --------------------------------------------------------------------------------------------


def choose(
    contents: Contents,
    now: float,
    *,
    name: str | None = None,
    older: float | None = None,
    max_bytes: int | None = None,
) -> list[CachedBase]:
    """Return the bases to remove, the longest unused first.

    Parameters
    ----------
    contents : Contents
    now : float
        Seconds since 1970.
    name : str, optional
        Only this base: the name of a folder, or of a network for all its folders.
    older : float, optional
        Only bases that were not used for so many seconds.
    max_bytes : int, optional
        No more than needed for the whole store to be at most so large.

    Raises
    ------
    StoreError
        No base has that name.
    """
    chosen = list(reversed(contents.bases))
    if name is not None:
        chosen = [base for base in chosen if name in (base.name, base.base)]
        if not chosen:
            names = sorted({base.name for base in contents.bases} | {base.base for base in contents.bases})
            raise StoreError(
                f"the store {contents.folder} has no base {name!r}; it has {', '.join(names) or 'none'}."
                + did_you_mean(name, names)
            )
    if older is not None:
        chosen = [base for base in chosen if now - base.last_used > older]
    return chosen if max_bytes is None else _needed(chosen, contents.bytes - max_bytes)


def _needed(bases: Sequence[CachedBase], too_many: int) -> list[CachedBase]:
    """Return the first bases that together have at least so many bytes."""
    needed: list[CachedBase] = []
    for base in bases:
        if too_many <= 0:
            break
        needed.append(base)
        too_many -= base.bytes
    return needed


def prune(folder: Path, bases: Sequence[CachedBase]) -> Removal:
    """Remove bases from the store; those that a process uses, or has used since they were listed, stay.

    A process that is stopped in between leaves a valid store: shards do not depend on each other.

    Raises
    ------
    StoreError
        A file cannot be removed, or the store cannot be locked.
    """
    removed, in_use, left, freed = [], [], [], 0
    for base in bases:
        place = folder / base.name
        used_since = (last_use(place) or 0.0) > base.last_used
        with removing(place) as unused:
            if used_since or not unused:
                in_use.append(base)
                continue
            freed += _remove(place)
            removed.append(base)
            left += _left_in(place)
    return Removal(tuple(removed), tuple(in_use), freed, tuple(left))


def _remove(folder: Path) -> int:
    """Remove the store's own files of a base, and folders that are then empty; return their size."""
    freed = 0
    for part in (folder / SHARD_FOLDER, folder):
        remove_left_behind(part)
    try:
        for path in _own_files(folder):
            status = _status(path)
            path.unlink(missing_ok=True)
            freed += 0 if status is None else status.st_size
    except OSError as error:
        raise StoreError(explain_os_error(error, folder)) from error
    for empty in (folder / SHARD_FOLDER, folder):
        with contextlib.suppress(OSError):  # it holds something else
            empty.rmdir()
    return freed


def _left_in(folder: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return [Path(entry.path) for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)]
    return []
