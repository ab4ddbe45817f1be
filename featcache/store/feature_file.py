"""``features.h5``: a data set as seen through the store, a group per split with one row per photo.

The features in it are virtual: HDF5 itself fetches them from the shards, so any HDF5 tool reads the file and
no number is stored twice. Our own reader goes to the shards directly, which lets it check them and is
faster when a split's rows are scattered over many shards. A packed file holds the numbers itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featcache.errors import FormatError, ShardError, StoreError
from featcache.files import explain_os_error, remove_left_behind, write_bytes_whole, written_whole
from featcache.store import shards
from featcache.store.base_store import BaseStore, gather
from featcache.store.format import (
    AUGMENT,
    DIGEST,
    DIGEST_BYTES,
    FEATURES,
    FORMAT,
    LABELS,
    PATH,
    ROW,
    SHARD,
    SHARDS,
    SKIPPED,
    VIEW,
    VIEWS,
    check_format,
)
from featcache.store.plan import Key, Location

_STRING = h5py.string_dtype()
_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split, in the order they are written.

    Attributes
    ----------
    paths : sequence of str
    labels : ndarray of int64, shape (n,)
        Indices into the classes.
    digests : sequence of bytes
        SHA-256 of each photo's bytes.
    views : sequence of int
        The views that each photo is stored in, as the store numbers them; 0 comes first.
    augment : dict
        How views may differ from the photo, as JSON-ready data; empty where 0 is the only one.
    """

    paths: Sequence[str]
    labels: NDArray[np.int64]
    digests: Sequence[bytes]
    views: Sequence[int] = (0,)
    augment: Mapping[str, Any] = field(default_factory=dict)

    def store_keys(self) -> Iterator[Key]:
        """Give all rows of the store that the split has, all views of a photo one after another."""
        return (Key(digest, view) for digest in self.digests for view in self.views)


@dataclass(frozen=True)
class Contents:
    """What a feature file says beside its rows.

    Attributes
    ----------
    classes : tuple of str
        Class names; a label is an index into them.
    base : dict
        What the features were made with.
    recipe : dict
        The recipe they were made for.
    skipped : sequence of (path, reason)
        Photos that could not be decoded.
    """

    classes: tuple[str, ...]
    base: dict[str, Any]
    recipe: dict[str, Any]
    skipped: Sequence[tuple[str, str]]


def write_feature_file(
    path: Path,
    splits: Mapping[str, SplitRows],
    locations: Mapping[Key, Location],
    base_store: BaseStore,
    contents: Contents,
) -> None:
    """Write ``features.h5`` with virtual features.

    Parameters
    ----------
    path : Path
    splits : mapping of split name to SplitRows
        Splits without rows are left out.
    locations : mapping of Key to Location
        Where each key's row is on `base_store`.
    base_store : BaseStore
    contents : Contents

    Raises
    ------
    StoreError
        The file cannot be written; what stood there before is still there.
    """
    names = sorted({locations[key].shard for split in splits.values() for key in split.store_keys()})
    with h5py.File("features", "w", driver="core", backing_store=False) as file:
        _write_contents(file, contents)
        file.attrs["store"] = str(base_store.shard_folder.resolve())
        file.create_dataset(SHARDS, data=names, dtype=_STRING)
        for split, rows in splits.items():
            if rows.digests:
                group = file.create_group(split)
                _write_rows(group, rows)
                _write_places(group, rows, locations, _Sources(base_store, names))
        file.flush()
        data = bytes(file.id.get_file_image())
    remove_left_behind(path.parent)
    write_bytes_whole(path, data)


def _write_contents(file: Any, contents: Contents) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["classes"] = np.array(contents.classes, dtype=_STRING)
    file.attrs["base"] = json.dumps(contents.base, sort_keys=True)
    file.attrs["recipe"] = json.dumps(contents.recipe, sort_keys=True)
    file.attrs["versions"] = json.dumps(shards.library_versions(), sort_keys=True)
    group = file.create_group(SKIPPED)
    for number, name in enumerate((PATH, "reason")):
        group.create_dataset(name, data=[one[number] for one in contents.skipped], dtype=_STRING)


def _write_rows(group: Any, rows: SplitRows) -> None:
    digest = np.frombuffer(b"".join(rows.digests), np.uint8)
    group.create_dataset(LABELS, data=rows.labels.astype(np.int64))
    group.create_dataset(PATH, data=list(rows.paths), dtype=_STRING)
    group.create_dataset(DIGEST, data=digest.reshape(-1, DIGEST_BYTES))
    if len(rows.views) > 1:
        views = group.create_group(VIEWS)
        views.create_dataset(VIEW, data=np.array(rows.views, np.int64))
        views.attrs[AUGMENT] = json.dumps(rows.augment, sort_keys=True)


class _Sources:
    """The shards that a feature file points to."""

    def __init__(self, base_store: BaseStore, names: Sequence[str]) -> None:
        self.index = {name: number for number, name in enumerate(names)}
        self.shape, self.dtype = tuple(base_store.base["feature_shape"]), np.dtype(base_store.base["dtype"])
        self._base_store, self._names = base_store, names
        self._heights: dict[int, int] = {}

    def __getitem__(self, shard: int) -> Any:
        path = self._base_store.shard_folder.resolve() / self._names[shard]
        if shard not in self._heights:
            self._heights[shard] = len(shards.read_keys(path, self._base_store.base).view)
        return h5py.VirtualSource(str(path), FEATURES, (self._heights[shard], *self.shape), self.dtype)


def _write_places(group: Any, rows: SplitRows, locations: Mapping[Key, Location], sources: _Sources) -> None:
    places = [locations[key] for key in rows.store_keys()]
    shape = len(rows.digests), len(rows.views)
    shard = np.array([sources.index[place.shard] for place in places], np.int32).reshape(shape)
    row = np.array([place.row for place in places], np.int64).reshape(shape)
    _write_virtual(group, shard[:, 0], row[:, 0], sources)
    if len(rows.views) > 1:
        _write_virtual(group[VIEWS], shard, row, sources)


def _write_virtual(group: Any, shard: NDArray[np.int32], row: NDArray[np.int64], sources: _Sources) -> None:
    """Write where rows are, (n,) or (n, views), and the virtual dataset of their features."""
    group.create_dataset(SHARD, data=shard)
    group.create_dataset(ROW, data=row)
    layout = h5py.VirtualLayout((*shard.shape, *sources.shape), sources.dtype)
    for column in np.ndindex(shard.shape[1:]):
        here = (slice(None), *column)
        for start, stop, step in _runs(shard[here], row[here]):
            first, last = int(row[start, *column]), int(row[stop - 1, *column])
            layout[start:stop, *column] = sources[shard[start, *column]][first : last + 1 : step]
    # HDF5 gives the fill value for a shard that is gone, and no error: NaN cannot be taken for a feature
    group.create_virtual_dataset(FEATURES, layout, fillvalue=np.nan)


def _runs(shard: NDArray[np.int32], row: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yield (start, stop, step) of the longest stretches that lie evenly spaced in the same shard.

    The views of a photo lie one after another, so that one view of many photos lies in even steps.
    """
    steps = np.where(np.diff(shard) == 0, np.diff(row), 0)
    start = 0
    for at in range(1, len(row) + 1):
        step = steps[start] if start < len(steps) else 0
        if at == len(row) or step <= 0 or steps[at - 1] != step:
            yield start, at, max(1, int(step))
            start = at


class Features:
    """An open feature file. Use it as ``features["train"].load()``; it closes with ``close`` or ``with``.

    Parameters
    ----------
    path : path
        A ``features.h5`` or a packed file.

    Attributes
    ----------
    path : Path
    classes : tuple of str
    base : dict
        What the features were made with.
    recipe : dict
        The recipe they were made for.
    skipped : list of (path, reason)

    Raises
    ------
    FormatError
        The file is missing, none of featcache's, damaged or of a newer format.
    ShardError
        A shard is missing, cut or damaged; the message names it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = _open(self.path)
        try:
            self._read_contents()
            self._check_shards()
        except BaseException:
            self._file.close()
            raise

    def _read_contents(self) -> None:
        check_format(self._file.attrs.get("format"), str(self.path))
        try:
            attributes = self._file.attrs
            self.classes = tuple(str(name) for name in attributes["classes"])
            self.base: dict[str, Any] = json.loads(attributes["base"])
            self.recipe: dict[str, Any] = json.loads(attributes["recipe"])
            skipped = self._file[SKIPPED]
            self.skipped = list(zip(_strings(skipped[PATH]), _strings(skipped["reason"]), strict=True))
            self._shards = _strings(self._file[SHARDS]) if SHARDS in self._file else None
            self._splits = [name for name in self._file if name not in (SHARDS, SKIPPED)]
        except (KeyError, OSError, ValueError, RuntimeError) as error:
            raise FormatError(f"{self.path} is damaged ({error}); {_AGAIN}") from None

    @property
    def packed(self) -> bool:
        """Whether the file holds its numbers itself."""
        return self._shards is None

    def _check_shards(self) -> None:
        if self._shards is not None:
            try:
                self._base_store.check(self._shards)
            except ShardError as error:
                raise ShardError(f"{error}; {self.path} needs it. {_AGAIN.capitalize()}") from None

    @property
    def _base_store(self) -> BaseStore:
        return BaseStore(Path(self._file.attrs["store"]).parent, self.base)

    @property
    def splits(self) -> list[str]:
        """Names of the splits that the file has, in the order train, validation, test."""
        order = {"train": 0, "validation": 1, "test": 2}
        return sorted(self._splits, key=lambda name: order.get(name, 3))

    def __contains__(self, split: object) -> bool:
        return split in self._splits

    def __getitem__(self, split: str) -> Split:
        """Return a split.

        Raises
        ------
        KeyError
            The file has no such split; the message lists those it has.
        """
        if split not in self._splits:
            raise KeyError(f"no split {split!r} in {self.path}; it has {', '.join(self.splits)}")
        names = self._shards
        paths = None if names is None else [self._base_store.shard_folder / name for name in names]
        return Split(self._file[split], self.path, paths)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Features:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        rows = ", ".join(f"{name}: {len(self[name]):,} rows" for name in self.splits)
        return f"<Features {self.path} ({rows})>"


_AGAIN = "run the same recipe again with `featcache features` and what is missing is computed"


def _open(path: Path) -> Any:
    if not path.is_file():
        raise FormatError(f"{path} does not exist; `featcache features RECIPE` writes one")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise FormatError(f"{path} is no feature file, or a damaged one ({error}); {_AGAIN}") from None


def _strings(dataset: Any) -> list[str]:
    return [str(text) for text in dataset.asstr()[:]]


class Split:
    """The rows of one split of an open feature file."""

    def __init__(self, group: Any, path: Path, shard_paths: list[Path] | None) -> None:
        self._group = group
        self._path = path
        self._shard_paths = shard_paths

    def __len__(self) -> int:
        return int(self._group[LABELS].shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features, (n, h, w, c) or (n, c)."""
        return tuple(self._group[FEATURES].shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type of the features."""
        dtype: np.dtype[Any] = self._group[FEATURES].dtype
        return dtype

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, shape (n,)."""
        return np.asarray(self._read(LABELS))

    @property
    def digests(self) -> NDArray[np.uint8]:
        """SHA-256 of each photo's bytes, shape (n, 32)."""
        return np.asarray(self._read(DIGEST))

    @property
    def paths(self) -> list[str]:
        """Path of each photo."""
        return _strings(self._group[PATH])

    @cached_property
    def view_numbers(self) -> tuple[int, ...]:
        """The views that each photo is stored in, as the store numbers them; 0, the plain photo, is first."""
        if VIEWS not in self._group:
            return (0,)
        return tuple(np.asarray(self._read(f"{VIEWS}/{VIEW}")).tolist())

    @property
    def views(self) -> int:
        """How many views each photo is stored in; 1 without augmentation."""
        return len(self.view_numbers)

    @property
    def augment(self) -> dict[str, Any]:
        """How views may differ from the photo; empty without augmentation."""
        return json.loads(self._group[VIEWS].attrs[AUGMENT]) if self.views > 1 else {}

    def load(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Read all plain photos: features ``X`` (n, ...) and labels ``y`` (n,).

        Raises
        ------
        ShardError, FormatError
            Damaged numbers; the message says what to do.
        """
        return self.read(0, len(self)), self.labels

    def load_views(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Read all views of all photos as rows of their own, those of a photo one after another.

        Returns
        -------
        X : ndarray, shape (n * views, ...)
        y : ndarray of int64, shape (n * views,)

        Raises
        ------
        ShardError, FormatError
            As `load`.
        """
        X = self.read_views(0, len(self))
        return X.reshape(-1, *self.shape[1:]), self.labels.repeat(self.views)

    def blocks(self, rows: int | None = None) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        """Yield ``(X, y)`` of plain photos in order, `rows` at a time (default: about 32 MB of features)."""
        step = rows or _rows_per_block(self.shape, self.dtype)
        labels = self.labels
        for start in range(0, len(self), step):
            yield self.read(start, min(start + step, len(self))), labels[start : start + step]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read features of plain photos `start` to `stop` (excluded), shape (stop - start, ...)."""
        return self._read_features("", slice(start, stop), self.shape[1:])

    def read_views(self, start: int, stop: int) -> NDArray[Any]:
        """Read all views of photos `start` to `stop` (excluded), shape (stop - start, views, ...)."""
        if self.views == 1:
            return self.read(start, stop)[:, None]
        return self._read_features(f"{VIEWS}/", slice(start, stop), self.shape[1:])

    def _read_features(self, group: str, photos: slice, shape: tuple[int, ...]) -> NDArray[Any]:
        if self._shard_paths is None:
            return np.asarray(self._read(group + FEATURES, photos))
        shard = np.asarray(self._read(group + SHARD, photos))
        row = np.asarray(self._read(group + ROW, photos))
        try:
            rows = gather(self._shard_paths, shard.ravel(), row.ravel(), shape, self.dtype)
        except ShardError as error:
            raise ShardError(f"{error}; {self._path} needs it. {_AGAIN.capitalize()}") from None
        return rows.reshape(*shard.shape, *shape)

    def _read(self, name: str, rows: slice = slice(None)) -> Any:
        try:
            return self._group[name][rows]
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise FormatError(f"{self._path} is damaged ({error}); {_AGAIN}") from None


def pack(features: Features, path: Path) -> None:
    """Write a feature file that holds its numbers itself, for another machine.

    Parameters
    ----------
    features : Features
    path : Path
        It is written whole or not at all.

    Raises
    ------
    StoreError
        No room or no permission.
    """
    try:
        with written_whole(path) as aside, h5py.File(aside, "w") as file:
            _write_contents(
                file, Contents(features.classes, features.base, features.recipe, features.skipped)
            )
            for name in features.splits:
                _pack_split(file.create_group(name), features[name])
    except (RuntimeError, OSError) as error:
        # HDF5 wraps what the disk said
        cause = OSError(28, "") if "errno = 28" in str(error) else OSError(str(error))
        raise StoreError(explain_os_error(cause, path)) from None


def _pack_split(group: Any, split: Split) -> None:
    digests = [bytes(digest) for digest in split.digests]
    _write_rows(group, SplitRows(split.paths, split.labels, digests, split.view_numbers, split.augment))
    _pack_features(group, split.shape, split.dtype, split.read)
    if split.views > 1:
        shape = (len(split), split.views, *split.shape[1:])
        _pack_features(group[VIEWS], shape, split.dtype, split.read_views)


def _pack_features(
    group: Any, shape: tuple[int, ...], dtype: np.dtype[Any], read: Callable[[int, int], NDArray[Any]]
) -> None:
    chunks = shards.chunks_of(shape, dtype)
    out = group.create_dataset(FEATURES, shape, dtype, chunks=chunks, fletcher32=True)
    step = _rows_per_block(shape, dtype)
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        out[start:stop] = read(start, stop)


def _rows_per_block(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
    return max(1, _BLOCK_BYTES // row_bytes)
