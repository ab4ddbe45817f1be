"""The rows of one split of an open feature file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featcache.errors import FormatError, ShardError, StoreError
from featcache.store.base_store import BaseStore
from featcache.store.format import (
    AUGMENT,
    BLOCK_HASHES,
    DIGEST,
    DIGEST_BYTES,
    FEATURES,
    GROUP,
    LABELS,
    PATH,
    ROW,
    ROWS_PER_BLOCK,
    SHARD,
    VIEW,
    VIEW_GROUP,
    WEIGHT,
)
from featcache.store.reading import HDF5_ERRORS, child, dataset, json_attribute, one_line, texts
from featcache.store.shards import rows_per_block

AGAIN = "run the same recipe again with `featcache features` and what is missing is computed"
BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class FileFacts:
    """What the splits of a feature file have in common.

    Attributes
    ----------
    path : Path
    format : int
    classes : int
        Number of classes.
    shape : tuple of int
        Of one row of features.
    dtype : dtype
    store : BaseStore or None
        Where the features are; None for a packed file.
    shards : sequence of str
        Names of the shards that `store` has for this file.
    groups : int
        Number of groups of photos that have a name.
    """

    path: Path
    format: int
    classes: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    store: BaseStore | None
    shards: Sequence[str]
    groups: int = 0


class Split:
    """The rows of one split; ``features["train"]`` gives one.

    Parameters
    ----------
    group : h5py.Group
    facts : FileFacts

    Raises
    ------
    ValueError, KeyError, OSError, RuntimeError
        What the group says contradicts itself or the file; see `featcache.store.reading`.
    """

    def __init__(self, group: Any, facts: FileFacts) -> None:
        self._group = group
        self._facts = facts
        self._labels = _labels(group, facts.classes)
        self.view_numbers: tuple[int, ...] = (0,)
        self.augment: dict[str, Any] = {}
        rows = len(self._labels)
        self._groups = _groups(group, rows, facts.groups) if GROUP in group else None
        self._weights = _weights(group, rows) if WEIGHT in group else None
        dataset(group, DIGEST, (rows, DIGEST_BYTES), np.uint8)
        dataset(group, PATH, (rows,), None)
        self._plain = self._feature_reader(group, (rows,))
        if VIEW_GROUP in group:
            views = child(group, VIEW_GROUP, h5py.Group)
            numbers = dataset(views, VIEW, (None,), np.int64)[:].tolist()
            self.view_numbers, self.augment = tuple(numbers), json_attribute(views.attrs, AUGMENT)
            self._views = self._feature_reader(views, (rows, len(numbers)))

    def _feature_reader(self, group: Any, rows: tuple[int, ...]) -> Callable[[int, int], NDArray[Any]]:
        """Return what reads rows `start` to `stop`, after comparing everything that can be known before."""
        facts = self._facts
        if facts.store is not None:
            return _ShardRows(group, rows, facts, facts.store).read
        features = dataset(group, FEATURES, (*rows, *facts.shape), facts.dtype)
        if facts.format == 1:
            return lambda start, stop: np.asarray(features[start:stop])
        return _PackedRows(group, features).read

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features, (n, h, w, c) or (n, c)."""
        return (len(self), *self._facts.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type of the features."""
        return self._facts.dtype

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, shape (n,)."""
        return self._labels.copy()

    @property
    def digests(self) -> NDArray[np.uint8]:
        """SHA-256 of each photo's bytes, shape (n, 32)."""
        return np.asarray(self._read(lambda: self._group[DIGEST][:]))

    @property
    def has_groups(self) -> bool:
        """Whether photos of the data set have groups."""
        return self._groups is not None

    @property
    def groups(self) -> NDArray[np.int64]:
        """Number of each photo's group, shape (n,): photos of one number must not be divided.

        From 0 it is an index into the file's ``groups``, their names. A photo by itself has a negative
        number, which follows from its digest: copies have the same, also in another split.
        """
        alone = -1 - (self.digests[:, :8].copy().view(">u8")[:, 0] >> np.uint64(1)).astype(np.int64)
        return alone if self._groups is None else np.where(self._groups < 0, alone, self._groups)

    @property
    def has_weights(self) -> bool:
        """Whether photos of the data set have sample weights other than 1."""
        return self._weights is not None

    @property
    def weights(self) -> NDArray[np.float64]:
        """Sample weight of each photo, shape (n,)."""
        return np.ones(len(self)) if self._weights is None else self._weights.copy()

    @property
    def paths(self) -> list[str]:
        """Path of each photo."""
        return list(self._read(lambda: texts(self._group, PATH, len(self))))

    @property
    def views(self) -> int:
        """Number of views that each photo is stored in; 1 without augmentation."""
        return len(self.view_numbers)

    def load(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Read all plain photos: features ``X`` (n, ...) and labels ``y`` (n,).

        Raises
        ------
        ShardError, FormatError
            Damaged numbers; the message says what to do.
        StoreError
            A file cannot be read now.
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
        ShardError, FormatError, StoreError
            As `load`.
        """
        X = self.read_views(0, len(self))
        return X.reshape(-1, *self.shape[1:]), self.labels.repeat(self.views)

    def blocks(self, rows: int | None = None) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        """Yield ``(X, y)`` of plain photos in order, `rows` at a time (default: about 32 MB of features)."""
        step = rows or rows_per_block(self.shape, self.dtype, BLOCK_BYTES)
        labels = self.labels
        for start in range(0, len(self), step):
            yield self.read(start, min(start + step, len(self))), labels[start : start + step]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read features of plain photos `start` to `stop` (excluded), shape (stop - start, ...)."""
        return np.asarray(self._read(lambda: self._plain(start, stop)))

    def read_views(self, start: int, stop: int) -> NDArray[Any]:
        """Read all views of photos `start` to `stop` (excluded), shape (stop - start, views, ...)."""
        if self.views == 1:
            return self.read(start, stop)[:, None]
        return np.asarray(self._read(lambda: self._views(start, stop)))

    def _read(self, read: Callable[[], Any]) -> Any:
        path = self._facts.path
        try:
            return read()
        except ShardError as error:
            raise ShardError(f"{error}; {path} needs it. {AGAIN.capitalize()}") from None
        except HDF5_ERRORS as error:
            raise StoreError(f"{path} cannot be read: {one_line(error)}") from None


def _labels(group: Any, classes: int) -> NDArray[np.int64]:
    labels = np.asarray(dataset(group, LABELS, (None,), np.int64)[:])
    _check_range(labels, classes, LABELS)
    return labels


def _groups(group: Any, rows: int, count: int) -> NDArray[np.int64]:
    groups = np.asarray(dataset(group, GROUP, (rows,), np.int64)[:])
    _check_range(groups + 1, count + 1, GROUP)
    return groups


def _weights(group: Any, rows: int) -> NDArray[np.float64]:
    weights = np.asarray(dataset(group, WEIGHT, (rows,), np.float64)[:])
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"{WEIGHT!r} has values that are not finite numbers of 0 or more")
    return weights


def _check_range(numbers: NDArray[Any], limit: int, name: str) -> None:
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < limit:
        raise ValueError(f"{name!r} has {numbers.min()} to {numbers.max()}; allowed are 0 to {limit - 1}")


class _ShardRows:
    """Features that are in shards. Our reader goes to these directly.

    That lets it check them, and is faster than HDF5's virtual dataset if a split's rows are scattered over
    many shards: opening that alone takes 40 ms for 3,000 shuffled rows. So it is not even opened.
    """

    def __init__(self, group: Any, rows: tuple[int, ...], facts: FileFacts, store: BaseStore) -> None:
        self._facts, self._store = facts, store
        self._shard = np.asarray(dataset(group, SHARD, rows, np.int32)[:])
        self._row = np.asarray(dataset(group, ROW, rows, np.int64)[:])
        _check_range(self._shard, len(facts.shards), SHARD)
        _check_range(self._row, np.iinfo(np.int64).max, ROW)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        shard, row = self._shard[start:stop], self._row[start:stop]
        facts = self._facts
        rows = self._store.gather(facts.shards, shard.ravel(), row.ravel(), facts.shape, facts.dtype)
        return rows.reshape(*shard.shape, *facts.shape)


class _PackedRows:
    """Features that are in the file itself, with a SHA-256 for every block of rows."""

    def __init__(self, group: Any, features: Any) -> None:
        self._features = features
        self._rows = int(features.attrs[ROWS_PER_BLOCK])
        if self._rows < 1:
            raise ValueError(f"the attribute {ROWS_PER_BLOCK!r} is {self._rows}")
        blocks = -(-len(features) // self._rows)
        self._hashes = np.asarray(dataset(group, BLOCK_HASHES, (blocks, 32), np.uint8)[:])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        start, stop, _ = slice(start, stop).indices(len(self._features))
        first = start // self._rows * self._rows
        last = min(-(-stop // self._rows) * self._rows, len(self._features))
        rows = np.asarray(self._features[first:last])
        for at in range(0, len(rows), self._rows):
            block = rows[at : at + self._rows]
            expected = self._hashes[(first + at) // self._rows]
            if hashlib.sha256(block.data).digest() != expected.tobytes():
                name = self._features.file.filename
                raise FormatError(f"{name} is damaged: features have changed since it was written; {AGAIN}")
        return rows[start - first : stop - first]
