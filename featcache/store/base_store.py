"""The store on disk: one base_store of shards per base, and what was learned of bases before.

A shard that was once read in full is trusted as long as size and times of its file stay the same; the
memory of that (``verified.json``) may be lost at any time and costs one more reading.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FormatError, ShardError, StoreError
from featcache.files import explain_os_error, remove_left_behind, write_bytes_whole
from featcache.store import shards
from featcache.store.format import BASE_FILE, FORMAT, SHARD_FOLDER
from featcache.store.plan import Key, Location

Stat = list[int]


class Store:
    """The cache folder.

    Parameters
    ----------
    folder : Path
        It is made when something is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def base_store(self, name: str, base: dict[str, Any]) -> BaseStore:
        """Return the base_store called `name` for features made with `base` (JSON-ready data)."""
        return BaseStore(self.folder / name, base)

    def load_spec(self, key: str) -> dict[str, Any] | None:
        """Return what `save_spec` saved under `key`, or None."""
        with contextlib.suppress(OSError, ValueError):
            spec = json.loads(self._spec_file(key).read_text(encoding="utf-8"))
            return spec if isinstance(spec, dict) else None
        return None

    def save_spec(self, key: str, spec: dict[str, Any]) -> None:
        """Save JSON-ready data that takes long to find, for later runs."""
        write_bytes_whole(self._spec_file(key), _json_bytes(spec))

    def load_file(self, base_name: str, name: str) -> bytes | None:
        """Return a file that `save_file` saved beside a base's shards, or None."""
        with contextlib.suppress(OSError):
            return (self.folder / base_name / name).read_bytes()
        return None

    def save_file(self, base_name: str, name: str, data: bytes) -> None:
        """Save a file beside a base's shards."""
        write_bytes_whole(self.folder / base_name / name, data)

    def _spec_file(self, key: str) -> Path:
        return self.folder / "resolved" / f"{key}.json"

    def free_bytes(self) -> int:
        """Return the room on the disk that the store is on, or will be."""
        return shutil.disk_usage(_first_existing(self.folder)).free

    def not_writable(self) -> str | None:
        """Return why the store cannot be written, or None. Asks the file system by writing."""
        place = _first_existing(self.folder)
        try:
            # permissions alone do not tell: root passes them, and a disk can be mounted read-only
            with tempfile.TemporaryFile(dir=place):
                return None
        except OSError as error:
            return explain_os_error(error, place)


def _first_existing(folder: Path) -> Path:
    return next(place for place in [folder.absolute(), *folder.absolute().parents] if place.exists())


class BaseStore:
    """The shards of one base.

    Parameters
    ----------
    folder : Path
        ``CACHE/<base-name>-<fingerprint>``.
    base : dict
        What the features were made with; it is written to ``base.json`` and into every shard.
    """

    def __init__(self, folder: Path, base: dict[str, Any]) -> None:
        self.folder = folder
        self.base = base
        self.shard_folder = folder / SHARD_FOLDER

    def find(self, wanted: Collection[Key], note: Callable[[str], None]) -> dict[Key, Location]:
        """Return where the wanted rows are; damaged shards are set aside and their rows are not found.

        Parameters
        ----------
        wanted : collection of Key
        note : callable
            Is told one sentence for every shard that cannot be used.
        """
        wanted = set(wanted)
        found: dict[Key, Location] = {}
        verified = self._recall_verified()
        trusted: dict[str, Stat] = {}
        for path in sorted(self.shard_folder.glob(f"*{shards.SUFFIX}")):
            rows = self._usable_keys(path, verified, note)
            if rows is None:
                continue
            trusted[path.name] = _stat(path)
            for row, key in enumerate(rows):
                if key in wanted:
                    found.setdefault(key, Location(path.name, row))
        if trusted != verified:
            self._keep_verified(trusted)
        return found

    def _usable_keys(
        self, path: Path, verified: dict[str, Stat], note: Callable[[str], None]
    ) -> list[Key] | None:
        try:
            if verified.get(path.name) != _stat(path):
                shards.check_bytes(path)
            return shards.read_keys(path, self.base).keys()
        except FormatError as error:
            note(f"{error}; its rows are not used")
        except FileNotFoundError:
            pass  # another run has set it aside in this moment
        except ShardError as error:
            set_aside(path)
            note(f"{error}; it is set aside and its rows are computed again")
        return None

    def writer(
        self,
        rows_per_shard: int,
        seconds_per_shard: float,
        locations: dict[Key, Location] | None = None,
    ) -> ShardWriter:
        """Return a writer that adds shards to this base_store, after removing what killed runs left.

        It tells in `locations` where each row is.
        """
        if self.shard_folder.exists():
            remove_left_behind(self.shard_folder)
        if not (self.folder / BASE_FILE).exists():
            write_bytes_whole(self.folder / BASE_FILE, _json_bytes({"format": FORMAT, **self.base}))
        return ShardWriter(self, rows_per_shard, seconds_per_shard, {} if locations is None else locations)

    def check(self, names: Iterable[str]) -> None:
        """Make sure that the named shards are there and whole.

        Raises
        ------
        ShardError
            Naming the first shard that is not.
        """
        verified = self._recall_verified()
        for name in names:
            path = self.shard_folder / name
            if not path.is_file():
                raise ShardError(f"shard {path} is missing")
            if verified.get(name) != _stat(path):
                shards.check_bytes(path)

    def read(self, places: Sequence[Location], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Read the rows at `places`, shape (n, *shape); raises as `gather`."""
        names = sorted({place.shard for place in places})
        index = {name: number for number, name in enumerate(names)}
        shard = np.array([index[place.shard] for place in places], np.int64)
        row = np.array([place.row for place in places], np.int64)
        return gather([self.shard_folder / name for name in names], shard, row, shape, dtype)

    def _recall_verified(self) -> dict[str, Stat]:
        with contextlib.suppress(OSError, ValueError):
            kept = json.loads((self.folder / "verified.json").read_text(encoding="utf-8"))
            return kept if isinstance(kept, dict) else {}
        return {}

    def _keep_verified(self, verified: dict[str, Stat]) -> None:
        # on a disk that cannot be written the shards are simply read again next time
        with contextlib.suppress(StoreError):
            write_bytes_whole(self.folder / "verified.json", _json_bytes(verified))


def gather(
    paths: Sequence[Path], shard: NDArray[Any], row: NDArray[Any], shape: tuple[int, ...], dtype: Any
) -> NDArray[Any]:
    """Read scattered rows, every shard once and in one stretch.

    Parameters
    ----------
    paths : sequence of Path
        The shards.
    shard, row : ndarray of int, shape (n,)
        For each row wanted, its shard's index in `paths` and its place in it.
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
    """
    out = np.empty((len(row), *shape), dtype)
    for number in np.unique(shard):
        here = np.flatnonzero(shard == number)
        first, last = int(row[here].min()), int(row[here].max())
        try:
            block = shards.read_rows(paths[number], first, last + 1)
        except ShardError:
            # bytes that rot without a new time stamp: the next run would trust the shard again
            set_aside(paths[number])
            raise
        out[here] = block[row[here] - first]
    return out


def _stat(path: Path) -> Stat:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def set_aside(path: Path) -> None:
    """Rename a damaged shard so that it is used no more; on a read-only disk it stays."""
    with contextlib.suppress(OSError):
        path.replace(path.with_suffix(".damaged"))


class ShardWriter:
    """Collects batches and publishes them as shards.

    A shard is closed only between batches: a run that continues after a kill then forms the same batches,
    and its numbers are the same to the last bit.
    """

    def __init__(
        self,
        base_store: BaseStore,
        rows_per_shard: int,
        seconds_per_shard: float,
        locations: dict[Key, Location],
    ) -> None:
        self._base_store = base_store
        self._rows_per_shard = rows_per_shard
        self._seconds_per_shard = seconds_per_shard
        self._started = time.monotonic()
        self._keys: list[Key] = []
        # one block of memory for all shards: it is filled again and again
        self._rows: NDArray[Any] | None = None
        self.locations = locations
        self.seconds = 0.0

    def add(self, keys: list[Key], features: NDArray[Any]) -> None:
        """Add one batch: keys and features (n, ...) row by row."""
        if self._rows is None or len(self._keys) + len(keys) > len(self._rows):
            self._rows = self._with_room_for(len(self._keys) + len(keys), features)
        self._rows[len(self._keys) : len(self._keys) + len(keys)] = features
        self._keys.extend(keys)
        full = len(self._keys) >= self._rows_per_shard
        if full or time.monotonic() - self._started >= self._seconds_per_shard:
            self.publish()

    def _with_room_for(self, count: int, features: NDArray[Any]) -> NDArray[Any]:
        rows = np.empty((max(count, self._rows_per_shard), *features.shape[1:]), features.dtype)
        if self._rows is not None:
            rows[: len(self._keys)] = self._rows[: len(self._keys)]
        return rows

    def publish(self) -> None:
        """Write what was collected as a shard, if there is anything."""
        started = time.monotonic()
        if self._rows is not None and self._keys:
            path = shards.write_shard(
                self._base_store.shard_folder,
                self._keys,
                self._rows[: len(self._keys)],
                self._base_store.base,
            )
            self.locations.update({key: Location(path.name, row) for row, key in enumerate(self._keys)})
        self._keys, self._started = [], time.monotonic()
        self.seconds += self._started - started


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
