"""Writing ``features.h5``: a data set as seen through the store, a group per split with one row per photo.

The features in it are virtual: HDF5 itself reads them from the shards, so any HDF5 tool reads the file and
no number is stored twice.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featcache.files import remove_left_behind, write_bytes_whole
from featcache.store import shards
from featcache.store.base_store import BaseStore
from featcache.store.format import (
    AUGMENT,
    DIGEST,
    DIGEST_BYTES,
    FEATURE_FORMAT,
    FEATURES,
    FINDINGS,
    GROUP,
    GROUPS,
    LABELS,
    PATH,
    REASON,
    ROW,
    SHARD,
    SHARDS,
    SKIPPED,
    VIEW,
    VIEW_GROUP,
    WEIGHT,
)
from featcache.store.plan import Key, Location
from featcache.store.reading import set_text, text_array
from featcache.store.seal import USER_BLOCK, seal


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split, in the order in which they are written.

    Attributes
    ----------
    paths : sequence of str
    labels : ndarray of int64, shape (n,)
        Indices into the classes.
    digests : sequence of bytes
        SHA-256 of each photo's bytes.
    views : sequence of int
        The numbers of the views that each photo is stored in; 0, the plain photo, comes first.
    augment : dict
        How views may differ from the photo, as JSON-ready data; empty if 0 is the only one.
    groups : ndarray of int64, shape (n,), or None
        Index of each photo's group into the names of `Contents`, -1 for a photo by itself; None if no photo
        of the data set has a group.
    weights : ndarray of float64, shape (n,), or None
        Sample weights; None if all photos of the data set have weight 1.
    """

    paths: Sequence[str]
    labels: NDArray[np.int64]
    digests: Sequence[bytes]
    views: Sequence[int] = (0,)
    augment: Mapping[str, Any] = field(default_factory=dict)
    groups: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None

    def store_keys(self) -> Iterator[Key]:
        """Yield the keys of the split's rows in the store, all views of a photo one after another."""
        return (Key(digest, view) for digest in self.digests for view in self.views)


@dataclass(frozen=True)
class Contents:
    """The metadata of a feature file.

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
    findings : sequence of dict
        What should be looked at in the photos, as JSON-ready data.
    groups : sequence of str
        Names of the groups; empty if no photo has one.
    """

    classes: tuple[str, ...]
    base: dict[str, Any]
    recipe: dict[str, Any]
    skipped: Sequence[tuple[str, str]]
    findings: Sequence[Mapping[str, Any]] = ()
    groups: Sequence[str] = ()


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
        Where each key's row is in `base_store`.
    base_store : BaseStore
    contents : Contents

    Raises
    ------
    StoreError
        The file cannot be written; what stood there before is still there.
    """
    places = {split: [locations[key] for key in rows.store_keys()] for split, rows in splits.items()}
    names = sorted({place.shard for found in places.values() for place in found})
    image = io.BytesIO()
    with new_feature_file(image) as file:
        write_contents(file, contents)
        set_text(file.attrs, "store", str(base_store.shard_folder.resolve()))
        file.create_dataset(SHARDS, data=text_array(names))
        for split, rows in splits.items():
            if rows.digests:
                group = file.create_group(split)
                write_rows(group, rows)
                _write_locations(group, rows, places[split], _ShardSources(base_store, names))
    seal(image)
    remove_left_behind(path.parent)
    write_bytes_whole(path, image.getbuffer())


def new_feature_file(image: Any) -> h5py.File:
    """Begin an HDF5 file in `image`, a file-like object, with room for the seal."""
    return h5py.File(image, "w", userblock_size=USER_BLOCK, libver=shards.HDF5_VERSIONS)


def write_contents(file: Any, contents: Contents) -> None:
    """Write the metadata of a feature file."""
    file.attrs["format"] = FEATURE_FORMAT
    set_text(file.attrs, "classes", contents.classes)
    for name, value in (
        ("base", contents.base),
        ("recipe", contents.recipe),
        ("versions", shards.library_versions()),
    ):
        file.attrs[name] = json.dumps(value, sort_keys=True)
    group = file.create_group(SKIPPED)
    for number, name in enumerate((PATH, REASON)):
        group.create_dataset(name, data=text_array([one[number] for one in contents.skipped]))
    findings = [json.dumps(finding, sort_keys=True) for finding in contents.findings]
    file.create_dataset(FINDINGS, data=text_array(findings))
    if contents.groups:
        file.create_dataset(GROUPS, data=text_array(contents.groups))


def write_rows(group: Any, rows: SplitRows) -> None:
    """Write what a split says of its photos, without their features."""
    digest = np.frombuffer(b"".join(rows.digests), np.uint8)
    group.create_dataset(LABELS, data=rows.labels.astype(np.int64))
    group.create_dataset(PATH, data=text_array(rows.paths))
    group.create_dataset(DIGEST, data=digest.reshape(-1, DIGEST_BYTES))
    if rows.groups is not None:
        group.create_dataset(GROUP, data=rows.groups.astype(np.int64))
    if rows.weights is not None:
        group.create_dataset(WEIGHT, data=rows.weights.astype(np.float64))
    if len(rows.views) > 1:
        views = group.create_group(VIEW_GROUP)
        views.create_dataset(VIEW, data=np.array(rows.views, np.int64))
        views.attrs[AUGMENT] = json.dumps(rows.augment, sort_keys=True)


class _ShardSources:
    """The features of shards as sources of virtual datasets."""

    def __init__(self, base_store: BaseStore, names: Sequence[str]) -> None:
        self.index = {name: number for number, name in enumerate(names)}
        self.shape, self.dtype = tuple(base_store.base["feature_shape"]), np.dtype(base_store.base["dtype"])
        self._base_store, self._names = base_store, names
        self._folder = base_store.shard_folder.resolve()

    def __getitem__(self, shard: int) -> Any:
        name = self._names[shard]
        shape = (self._base_store.rows_in(name), *self.shape)
        return h5py.VirtualSource(str(self._folder / name), FEATURES, shape, self.dtype)


def _write_locations(group: Any, rows: SplitRows, places: Sequence[Location], sources: _ShardSources) -> None:
    shape = len(rows.digests), len(rows.views)
    shard = np.array([sources.index[place.shard] for place in places], np.int32).reshape(shape)
    row = np.array([place.row for place in places], np.int64).reshape(shape)
    _write_virtual(group, shard[:, 0], row[:, 0], sources)
    if len(rows.views) > 1:
        _write_virtual(group[VIEW_GROUP], shard, row, sources)


def _write_virtual(
    group: Any, shard: NDArray[np.int32], row: NDArray[np.int64], sources: _ShardSources
) -> None:
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
