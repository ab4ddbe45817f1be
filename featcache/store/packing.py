"""Packing a feature file: one file that holds its features itself, for another machine.

HDF5 does not survive a failed write: it crashes when it closes the file. So it never sees the disk here. It
lays out the file in memory, where the features take no room because they are not written; then the features
are written to their places as plain bytes, with errors of the disk as errors of Python.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from featcache.files import written_whole
from featcache.store.feature_file import Features
from featcache.store.feature_writer import Contents, SplitRows, new_feature_file, write_contents, write_rows
from featcache.store.format import BLOCK_HASHES, FEATURES, ROWS_PER_BLOCK, VIEW_GROUP
from featcache.store.seal import seal
from featcache.store.shards import rows_per_block
from featcache.store.split import BLOCK_BYTES, Split

_PAGE = 1 << 16


def pack(features: Features, path: Path) -> None:
    """Write a feature file that holds its features itself, for another machine.

    Parameters
    ----------
    features : Features
    path : Path
        It is written whole or not at all.

    Raises
    ------
    StoreError
        No room or no permission, or `path` is not a regular file.
    """
    layout = SparseFile()
    with new_feature_file(layout) as file:
        write_contents(
            file,
            Contents(
                features.classes,
                features.base,
                features.recipe,
                features.skipped,
                features.findings,
                features.groups,
            ),
        )
        parts = [
            part for name in features.splits for part in _lay_out(file.create_group(name), features[name])
        ]
    with written_whole(path) as aside, aside.open("w+b") as out:
        layout.copy_to(out)
        for part in parts:
            part.write(out)
        seal(out, sorted((part.offset, part.size) for part in parts))


@dataclass(frozen=True)
class _Part:
    """Features that are to be written: where they come from, and where they belong in the file."""

    read: Callable[[int, int], NDArray[Any]]
    rows: int
    rows_per_block: int
    rows_per_read: int
    offset: int
    size: int
    hashes_offset: int

    def write(self, out: BinaryIO) -> None:
        """Write the features and the SHA-256 of each block."""
        hashes = []
        out.seek(self.offset)
        for start in range(0, self.rows, self.rows_per_read):
            rows = np.ascontiguousarray(self.read(start, min(start + self.rows_per_read, self.rows)))
            out.write(rows.data.cast("B"))
            blocks = range(0, len(rows), self.rows_per_block)
            hashes += [hashlib.sha256(rows[at : at + self.rows_per_block].data).digest() for at in blocks]
        out.seek(self.hashes_offset)
        out.write(b"".join(hashes))


def _lay_out(group: Any, split: Split) -> Iterator[_Part]:
    digests = [bytes(digest) for digest in split.digests]
    groups = np.maximum(split.groups, -1) if split.has_groups else None
    weights = split.weights if split.has_weights else None
    rows = SplitRows(split.paths, split.labels, digests, split.view_numbers, split.augment, groups, weights)
    write_rows(group, rows)
    yield _place(group, split.shape, split.dtype, split.read)
    if split.views > 1:
        shape = (len(split), split.views, *split.shape[1:])
        yield _place(group[VIEW_GROUP], shape, split.dtype, split.read_views)


def _place(
    group: Any, shape: tuple[int, ...], dtype: np.dtype[Any], read: Callable[[int, int], NDArray[Any]]
) -> _Part:
    block = rows_per_block(shape, dtype)
    hashes = _allocated(group, BLOCK_HASHES, (-(-shape[0] // block), hashlib.sha256().digest_size), np.uint8)
    features = _allocated(group, FEATURES, shape, dtype)
    features.attrs[ROWS_PER_BLOCK] = block
    return _Part(
        read,
        rows=shape[0],
        rows_per_block=block,
        rows_per_read=block * max(1, rows_per_block(shape, dtype, BLOCK_BYTES) // block),
        offset=features.id.get_offset(),
        size=features.nbytes,
        hashes_offset=hashes.id.get_offset(),
    )


def _allocated(group: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    """Create a dataset that has a place in the file, but to which nothing is written."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, properties))


class SparseFile(io.RawIOBase):
    """A file in memory in which what was never written takes no room."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._size = 0
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        self._size = self._at if size is None else size
        return self._size

    def write(self, data: Any) -> int:
        """Write bytes at the position."""
        view = memoryview(data).cast("B")
        for page, within, piece in self._pieces(len(view)):
            self._pages.setdefault(page, bytearray(_PAGE))[within] = view[piece]
        self._at += len(view)
        self._size = max(self._size, self._at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read bytes at the position; zeros where nothing was written."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        for page, within, piece in self._pieces(count):
            view[piece] = self._pages.get(page, bytes(_PAGE))[within]
        self._at += count
        return count

    def _pieces(self, count: int) -> Iterator[tuple[int, slice, slice]]:
        """Yield the page, the place in it and the place in the buffer of `count` bytes at the position."""
        done = 0
        while done < count:
            page, start = divmod(self._at + done, _PAGE)
            length = min(_PAGE - start, count - done)
            yield page, slice(start, start + length), slice(done, done + length)
            done += length

    def copy_to(self, out: BinaryIO) -> None:
        """Write what was written to this file to the same places of another one."""
        for page, data in sorted(self._pages.items()):
            out.seek(page * _PAGE)
            out.write(data[: self._size - page * _PAGE])
        out.truncate(self._size)
