"""``features.h5``: a data set as seen through the store, a group per split with one row per photo.

The features in it are virtual: HDF5 itself fetches them from the shards, so any HDF5 tool reads the file and
no number is stored twice. Our own reader goes to the shards directly, which lets it check them and is
faster when a split's rows are scattered over many shards. A packed file holds the numbers itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featcache.errors import FormatError, ShardError, StoreError
from featcache.files import explain_os_error, remove_left_behind, write_bytes_whole, written_whole
from featcache.store import shards
from featcache.store.format import (
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
    check_format,
)
from featcache.store.plan import Key, Location
from featcache.store.shelf import Shelf, gather

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
    keys : sequence of Key
        Which row of the store each photo is.
    """

    paths: Sequence[str]
    labels: NDArray[np.int64]
    keys: Sequence[Key]


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
    shelf: Shelf,
    contents: Contents,
) -> None:
    """Write ``features.h5`` with virtual features.

    Parameters
    ----------
    path : Path
    splits : mapping of split name to SplitRows
        Splits without rows are left out.
    locations : mapping of Key to Location
        Where each key's row is on `shelf`.
    shelf : Shelf
    contents : Contents

    Raises
    ------
    StoreError
        The file cannot be written; what stood there before is still there.
    """
    names = sorted({locations[key].shard for rows in splits.values() for key in rows.keys})
    index = {name: number for number, name in enumerate(names)}
    with h5py.File("features", "w", driver="core", backing_store=False) as file:
        _write_contents(file, contents)
        file.attrs["store"] = str(shelf.shard_folder.resolve())
        file.create_dataset(SHARDS, data=names, dtype=_STRING)
        for split, rows in splits.items():
            if rows.keys:
                group = file.create_group(split)
                _write_rows(group, rows)
                places = [locations[key] for key in rows.keys]
                group.create_dataset(SHARD, data=np.array([index[place.shard] for place in places], np.int32))
                group.create_dataset(ROW, data=np.array([place.row for place in places], np.int64))
                _write_virtual(group, places, shelf, contents.base)
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
    digest = np.frombuffer(b"".join(key.digest for key in rows.keys), np.uint8)
    group.create_dataset(LABELS, data=rows.labels.astype(np.int64))
    group.create_dataset(PATH, data=list(rows.paths), dtype=_STRING)
    group.create_dataset(DIGEST, data=digest.reshape(-1, DIGEST_BYTES))


def _write_virtual(group: Any, places: Sequence[Location], shelf: Shelf, base: Mapping[str, Any]) -> None:
    shape, dtype = tuple(base["feature_shape"]), np.dtype(base["dtype"])
    layout = h5py.VirtualLayout((len(places), *shape), dtype)
    heights: dict[str, int] = {}
    for start, stop in _runs(places):
        shard, row = places[start]
        source_path = shelf.shard_folder.resolve() / shard
        if shard not in heights:
            heights[shard] = len(shards.read_keys(source_path, shelf.base).view)
        source = h5py.VirtualSource(str(source_path), FEATURES, (heights[shard], *shape), dtype)
        layout[start:stop] = source[row : row + stop - start]
    # HDF5 gives the fill value for a shard that is gone, and no error: NaN cannot be taken for a feature
    group.create_virtual_dataset(FEATURES, layout, fillvalue=np.nan)


def _runs(places: Sequence[Location]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the longest stretches that lie one after another in the same shard."""
    start = 0
    for at in range(1, len(places) + 1):
        if at == len(places) or places[at] != Location(places[at - 1].shard, places[at - 1].row + 1):
            yield start, at
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
                self._shelf.check(self._shards)
            except ShardError as error:
                raise ShardError(f"{error}; {self.path} needs it. {_AGAIN.capitalize()}") from None

    @property
    def _shelf(self) -> Shelf:
        return Shelf(Path(self._file.attrs["store"]).parent, self.base)

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
        paths = None if names is None else [self._shelf.shard_folder / name for name in names]
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

    def load(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Read everything: features ``X`` (n, ...) and labels ``y`` (n,).

        Raises
        ------
        ShardError, FormatError
            Damaged numbers; the message says what to do.
        """
        return self.read(0, len(self)), self.labels

    def blocks(self, rows: int | None = None) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        """Yield ``(X, y)`` in order, `rows` at a time (default: about 32 MB of features)."""
        row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        step = rows or max(1, _BLOCK_BYTES // row_bytes)
        labels = self.labels
        for start in range(0, len(self), step):
            yield self.read(start, min(start + step, len(self))), labels[start : start + step]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read features of rows `start` to `stop` (excluded), shape (stop - start, ...)."""
        if self._shard_paths is None:
            return np.asarray(self._read(FEATURES, slice(start, stop)))
        rows = slice(start, stop)
        shard, row = np.asarray(self._read(SHARD, rows)), np.asarray(self._read(ROW, rows))
        try:
            return gather(self._shard_paths, shard, row, self.shape[1:], self.dtype)
        except ShardError as error:
            raise ShardError(f"{error}; {self._path} needs it. {_AGAIN.capitalize()}") from None

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
    keys = [Key(bytes(digest), 0) for digest in split.digests]
    _write_rows(group, SplitRows(split.paths, split.labels, keys))
    chunks = shards.chunks_of(split.shape, split.dtype)
    out = group.create_dataset(FEATURES, split.shape, split.dtype, chunks=chunks, fletcher32=True)
    start = 0
    for block, _ in split.blocks():
        out[start : start + len(block)] = block
        start += len(block)
