"""The store on disk: a folder of shards for each base, and a cache of resolved base specs.

A shard that was once read in full is trusted as long as size and times of its file stay the same. The list
of those (``verified.json``) may be lost at any time, which costs one more reading.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FormatError, ShardError, StoreError
from featcache.files import explain_os_error, read_regular, remove_left_behind, write_bytes_whole
from featcache.store import shards
from featcache.store.format import BASE_FILE, SHARD_FOLDER, SHARD_FORMAT, VERIFIED_FILE
from featcache.store.plan import Key, Location
from featcache.store.shard_writer import ShardWriter
from featcache.store.usage import hold, mark_used

Stat = list[int]

# Names that become part of a path: no separator, no "..", no hidden file.
_NAME = re.compile(r"[^./\\\0:][^/\\\0:]*")
_LARGEST_JSON = 64 << 20


class Store:
    """The cache folder.

    Parameters
    ----------
    folder : Path
        It is made when something is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._base_stores: dict[str, BaseStore] = {}

    def base_store(self, name: str, base: dict[str, Any]) -> BaseStore:
        """Return the `BaseStore` in the folder `name` for features made with `base` (JSON-ready data).

        Raises
        ------
        StoreError
            `name` is not a plain folder name.
        """
        known = self._base_stores.get(name)
        if known is None or known.base != base:
            known = self._base_stores[name] = BaseStore(self.folder / _checked(name), base)
        return known

    def load_spec(self, key: str) -> dict[str, Any] | None:
        """Return the base spec that was saved under `key`; None if there is none that can be read."""
        return _read_json(self._spec_file(key))

    def save_spec(self, key: str, spec: dict[str, Any]) -> None:
        """Save a resolved base spec (JSON-ready data): resolving it again would build the network."""
        write_bytes_whole(self._spec_file(key), _json_bytes(spec))

    def load_file(self, base_name: str, name: str) -> bytes | None:
        """Return a file that `save_file` wrote; None if there is none that can be read."""
        with contextlib.suppress(OSError):
            return read_regular(self.folder / _checked(base_name) / _checked(name))
        return None

    def save_file(self, base_name: str, name: str, data: bytes) -> None:
        """Save a file beside the shards of a base, such as its converted network.

        Raises
        ------
        StoreError
            A name is not a plain file name, or the folder cannot be written.
        """
        write_bytes_whole(self.folder / _checked(base_name) / _checked(name), data)

    def mark_used(self, base_name: str) -> None:
        """Enter that a base was used, see `featcache.store.usage`; what is not in the store has no use."""
        folder = self.folder / _checked(base_name)
        if folder.is_dir():
            mark_used(folder)

    def _spec_file(self, key: str) -> Path:
        return self.folder / "resolved" / f"{_checked(key)}.json"

    def free_bytes(self) -> int:
        """Return the free space on the disk that the store is on, or will be."""
        return shutil.disk_usage(_first_existing(self.folder)).free

    def not_writable(self) -> str | None:
        """Return why the store cannot be written, or None. Writes a temporary file to find out."""
        place = _first_existing(self.folder)
        try:
            # permissions alone are not enough: root passes them, and a disk can be mounted read-only
            with tempfile.TemporaryFile(dir=place):
                return None
        except OSError as error:
            return explain_os_error(error, place)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{name!r} cannot be the name of a folder or file in the store: names are not empty, do not "
            "begin with a dot and have no '/', '\\\\' or ':'"
        )
    return name


def _first_existing(folder: Path) -> Path:
    places = [folder.absolute(), *folder.absolute().parents]
    return next(place for place in places if _exists(place))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that may not be entered
        return False


class BaseStore:
    """The shards of one base.

    Parameters
    ----------
    folder : Path
        ``CACHE/<base-name>-<fingerprint>``.
    base : dict
        What the features were made with; it is written to ``base.json`` and into every shard.
    read_only : bool
        Damaged shards stay where they are: for a folder that was named by a file, not by the user.
    """

    def __init__(self, folder: Path, base: dict[str, Any], read_only: bool = False) -> None:
        self.folder = folder
        self.base = base
        self.read_only = read_only
        self.shard_folder = folder / SHARD_FOLDER
        self._is_held = False
        self._rows_in: dict[str, int] = {}

    def find(self, wanted: Collection[Key] | None, note: Callable[[str], None]) -> dict[Key, Location]:
        """Return where the wanted rows are; damaged shards are set aside and their rows are not found.

        Parameters
        ----------
        wanted : collection of Key or None
            None means all rows of the base.
        note : callable
            Called with one sentence for every shard that is not used.

        Raises
        ------
        StoreError
            A shard cannot be read although it may be good: it is not renamed and not computed again.
        """
        self._hold()
        wanted = None if wanted is None else set(wanted)
        found: dict[Key, Location] = {}
        verified = self._load_verified()
        trusted: dict[str, Stat] = {}
        for path in self._shard_paths(note):
            usable = self._usable_keys(path, verified, note)
            if usable is None:
                continue
            trusted[path.name], rows = usable
            self._rows_in[path.name] = len(rows)
            for row, key in enumerate(rows):
                if wanted is None or key in wanted:
                    found.setdefault(key, Location(path.name, row))
        if trusted != verified:
            self._save_verified(trusted)
        return found

    def _shard_paths(self, note: Callable[[str], None]) -> list[Path]:
        try:
            paths = sorted(path for path in self.shard_folder.iterdir() if _is_visible_hdf5(path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.shard_folder} cannot be read: {error.strerror or error}") from None
        for path in paths:
            if not shards.is_shard_name(path.name):
                note(f"{path} does not have the name of a shard; it is not used")
        return [path for path in paths if shards.is_shard_name(path.name)]

    def _usable_keys(
        self, path: Path, verified: dict[str, Any], note: Callable[[str], None]
    ) -> tuple[Stat, list[Key]] | None:
        try:
            before = _stat(path)
            if verified.get(path.name) != before:
                shards.check_bytes(path)
            return before, shards.read_keys(path, self.base).keys()
        except FormatError as error:
            note(f"{error}; its rows are not used")
        except shards.DamagedShardError as error:
            self._set_aside(error)
            note(f"{error}; it is set aside and its rows are computed again")
        except ShardError:
            pass  # another run has set it aside in this moment
        return None

    def _set_aside(self, damaged: shards.DamagedShardError) -> None:
        """Rename a damaged shard so that it is not used any more; on a read-only disk it stays."""
        with contextlib.suppress(OSError):
            damaged.path.replace(damaged.path.with_suffix(".damaged"))

    def writer(
        self,
        rows_per_shard: int,
        seconds_per_shard: float,
        locations: dict[Key, Location] | None = None,
        fact_names: Sequence[str] = (),
    ) -> ShardWriter:
        """Return a writer that adds shards, after removing what killed runs left.

        It enters into `locations` where each row is; `fact_names` are those of the facts that it is given.
        """
        self.shard_folder.mkdir(parents=True, exist_ok=True)
        self._hold()
        remove_left_behind(self.shard_folder)
        base_file, facts = self.folder / BASE_FILE, {"format": SHARD_FORMAT, **self.base}
        if _read_json(base_file) != facts:
            write_bytes_whole(base_file, _json_bytes(facts))
        places = {} if locations is None else locations
        return ShardWriter(
            self.shard_folder, self.base, rows_per_shard, seconds_per_shard, places, tuple(fact_names)
        )

    def check(self, names: Iterable[str]) -> None:
        """Make sure that the named shards are there and whole.

        Raises
        ------
        ShardError
            A shard is missing or damaged; the message names it.
        StoreError
            A shard cannot be read now.
        """
        self._hold()
        verified = self._load_verified()
        for name in names:
            path = self._path(name)
            if verified.get(name) != _stat(path):
                shards.check_bytes(path)

    def _hold(self) -> None:
        """Keep the base from being removed as long as this object lives."""
        if self._is_held or not self.folder.exists():
            return
        handle = hold(self.folder, may_write=not self.read_only)
        if handle is not None:
            self._is_held = True
            weakref.finalize(self, os.close, handle)

    def read(self, places: Sequence[Location], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Read the rows at `places`, shape (n, *shape); raises as `gather`."""
        names = sorted({place.shard for place in places})
        index = {name: number for number, name in enumerate(names)}
        shard = np.array([index[place.shard] for place in places], np.int64)
        row = np.array([place.row for place in places], np.int64)
        return self.gather(names, shard, row, shape, dtype)

    def gather(
        self,
        names: Sequence[str],
        shard: NDArray[Any],
        row: NDArray[Any],
        shape: tuple[int, ...],
        dtype: Any,
    ) -> NDArray[Any]:
        """Read scattered rows, every shard once and in one stretch.

        Parameters
        ----------
        names : sequence of str
            The shards.
        shard, row : ndarray of int, shape (n,)
            For each row wanted, its shard's index in `names` and its place in it.
        shape : tuple of int
            Of one row.
        dtype : dtype

        Returns
        -------
        ndarray, shape (n, *shape)

        Raises
        ------
        ShardError
            A shard is missing or damaged; a damaged one is set aside.
        StoreError
            A shard cannot be read now.
        FormatError
            A shard does not have such rows.
        """
        out = np.empty((len(row), *shape), dtype)
        for number in np.unique(shard):
            here = np.flatnonzero(shard == number)
            first, last = int(row[here].min()), int(row[here].max())
            try:
                block = shards.read_rows(self._path(names[number]), first, last + 1, shape, dtype)
            except shards.DamagedShardError as error:
                # size and times of the file are as before: the next run would trust the shard again
                if not self.read_only:
                    self._set_aside(error)
                raise
            out[here] = block[row[here] - first]
        return out

    def facts(self, places: Sequence[Location], names: Sequence[str]) -> NDArray[np.float32]:
        """Return facts of the photos of some rows, shape (n, len(names)); NaN where one is not known.

        Raises
        ------
        ShardError, StoreError, FormatError
            As `gather`.
        """
        found = np.full((len(places), len(names)), np.nan, np.float32)
        number: dict[str, int] = {}
        shard = np.array([number.setdefault(place.shard, len(number)) for place in places], np.int64)
        row = np.array([place.row for place in places], np.int64)
        for name, which in number.items():
            facts = shards.read_facts(self._path(name))
            here = np.flatnonzero(shard == which)
            if facts is not None and facts.names == tuple(names):
                found[here] = facts.values[row[here]]
            elif facts is not None:
                for column, fact in enumerate(names):
                    if fact in facts.names:
                        found[here, column] = facts.values[row[here], facts.names.index(fact)]
        return found

    def rows_in(self, name: str) -> int:
        """Return how many rows a shard has; raises as `gather`."""
        if name not in self._rows_in:
            self._rows_in[name] = len(shards.read_keys(self._path(name), self.base).view)
        return self._rows_in[name]

    def _path(self, name: str) -> Path:
        if not shards.is_shard_name(name):
            raise FormatError(f"{name!r} is not the name of a shard")
        return self.shard_folder / name

    def _load_verified(self) -> dict[str, Any]:
        return _read_json(self.folder / VERIFIED_FILE) or {}

    def _save_verified(self, verified: dict[str, Stat]) -> None:
        # on a disk that cannot be written the shards are read in full again next time
        with contextlib.suppress(StoreError):
            write_bytes_whole(self.folder / VERIFIED_FILE, _json_bytes(verified))


def _is_visible_hdf5(path: Path) -> bool:
    return path.suffix == shards.SUFFIX and not path.name.startswith(".")


def _stat(path: Path) -> Stat:
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise ShardError(f"shard {path} is missing") from None
    except OSError as error:
        raise StoreError(f"shard {path} cannot be read: {error.strerror or error}") from None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object; None for a file that is missing, cannot be read or holds something else."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(read_regular(path, _LARGEST_JSON))
        return found if isinstance(found, dict) else None
    return None


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
