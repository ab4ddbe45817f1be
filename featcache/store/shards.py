"""Shards: immutable HDF5 files of features, named by the hash of their bytes.

A shard is made in memory and written as plain bytes, so that a full disk or a kill never leaves a
half-made HDF5 file; and its name lets the bytes be checked before HDF5 parses any of them.

A shard is damaged if its bytes no longer have the hash that its name says, and in no other case. Permission
denied, no file handle left or an error of the network are errors of the moment: the shard is good.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from featcache.errors import FeatcacheError, FormatError, ShardError, StoreError
from featcache.files import file_sha256, written_whole
from featcache.store.format import (
    BLOCK_HASHES,
    DIGEST,
    DIGEST_BYTES,
    FACT_NAMES,
    FACTS,
    FACTS_HASH,
    FEATURES,
    KEYS_HASH,
    SHARD_FORMAT,
    VIEW,
    check_format,
)
from featcache.store.plan import Key
from featcache.store.reading import (
    HDF5_ERRORS,
    dataset,
    json_attribute,
    one_line,
    open_hdf5,
    text_array,
    text_attribute,
)

SUFFIX = ".h5"
# File formats of HDF5 1.10 have checksums in their headers and indexes; those of 1.8 have none.
HDF5_VERSIONS = ("v110", "v110")
_NAME_LENGTH = 32
_NAME = re.compile(r"[0-9a-f]{32}\.h5")
# About this many bytes are read or checked at once: single-row chunks are slow, whole shards are wasteful.
_CHUNK_BYTES = 1 << 20

T = TypeVar("T")


class DamagedShardError(ShardError):
    """The bytes of a shard have changed since it was written."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"shard {path} is damaged: its bytes have changed since it was written")
        self.path = path


def is_shard_name(name: str) -> bool:
    """Whether a file name is one that `write_shard` gives; other names never become part of a path."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class ShardKeys:
    """The keys of a shard's rows, in row order.

    Attributes
    ----------
    digest : ndarray of uint8, shape (n, 32)
    view : ndarray of int64, shape (n,)
    """

    digest: NDArray[np.uint8]
    view: NDArray[np.int64]

    def keys(self) -> list[Key]:
        """Return the keys as plain values."""
        raw = self.digest.tobytes()
        cuts = range(0, len(raw), DIGEST_BYTES)
        return [Key(raw[at : at + DIGEST_BYTES], int(view)) for at, view in zip(cuts, self.view, strict=True)]


@dataclass(frozen=True)
class Facts:
    """What is known of the photos of some rows beside their features.

    Attributes
    ----------
    names : tuple of str
    values : ndarray of float32, shape (n, len(names))
        NaN where a fact is not known.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]


def write_shard(
    folder: Path,
    keys: Sequence[Key],
    features: NDArray[Any],
    base: dict[str, Any],
    facts: Facts | None = None,
) -> Path:
    """Write one shard and return its path.

    Parameters
    ----------
    folder : Path
        The base's shard folder; it is made if needed.
    keys : sequence of Key
        One per row.
    features : ndarray, shape (n, ...)
        In the dtype that is stored.
    base : dict
        What the features were made with, as JSON-ready data.
    facts : Facts, optional
        One row for each key.

    Raises
    ------
    StoreError
        The folder cannot be written or the disk is full; nothing is left behind.
    ShardError
        What the disk gives back is not what was written.
    """
    data = _as_hdf5(keys, features, base, facts)
    path = folder / f"{hashlib.sha256(data).hexdigest()[:_NAME_LENGTH]}{SUFFIX}"
    with written_whole(path) as aside:
        aside.write_bytes(data)
        if not _has_name_of_content(aside, path.stem):
            raise ShardError(f"{path}: the disk gave back other bytes than were written; check the disk")
    return path


def _as_hdf5(keys: Sequence[Key], features: NDArray[Any], base: dict[str, Any], facts: Facts | None) -> bytes:
    digest = np.frombuffer(b"".join(key.digest for key in keys), np.uint8).reshape(len(keys), DIGEST_BYTES)
    image = io.BytesIO()
    with _new_file(image) as file:
        file.attrs["format"] = SHARD_FORMAT
        # of fixed length: other strings are in a heap without checksums, in which HDF5 can loop for ever
        for name, value in (("base", base), ("versions", library_versions())):
            file.attrs[name] = text_array([json.dumps(value, sort_keys=True)])[0]
        _create_checked(file, FEATURES, features)
        _create_checked(file, DIGEST, digest)
        _create_checked(file, VIEW, np.array([key.view for key in keys], np.int64))
        # fletcher32 of zeros is zero: a block that rots to zeros passes it
        file.create_dataset(BLOCK_HASHES, data=_block_hashes(features, file[FEATURES].chunks[0]))
        file.attrs[KEYS_HASH] = text_array([_keys_hash(digest, file[VIEW][:])])[0]
        if facts is not None:
            _create_checked(file, FACTS, facts.values)
            file.attrs[FACT_NAMES] = text_array([json.dumps({"names": facts.names})])[0]
            file.attrs[FACTS_HASH] = text_array([_facts_hash(facts)])[0]
    return image.getvalue()


def _new_file(image: io.BytesIO) -> h5py.File:
    """Begin an HDF5 file without the time of writing, which `h5py.File` lets HDF5 store for the root group.

    With it, equal rows written at different times would be different shards.
    """
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, image)
    name = repr(image).encode()
    return h5py.File(h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, fcpl=creation, fapl=access))


def _create_checked(group: Any, name: str, data: NDArray[Any]) -> None:
    """Create a dataset with a checksum on every block of rows."""
    chunks = (rows_per_block(data.shape, data.dtype), *data.shape[1:])
    group.create_dataset(name, data=data, chunks=chunks, fletcher32=True)


def _block_hashes(features: NDArray[Any], rows: int) -> NDArray[np.uint8]:
    """Return the SHA-256 of every block of so many rows, (blocks, 32) uint8."""
    blocks = (np.ascontiguousarray(features[start : start + rows]) for start in range(0, len(features), rows))
    return np.stack([np.frombuffer(hashlib.sha256(block.data).digest(), np.uint8) for block in blocks])


def _keys_hash(digest: NDArray[np.uint8], view: NDArray[np.int64]) -> str:
    return hashlib.sha256(digest.tobytes() + view.tobytes()).hexdigest()


def _facts_hash(facts: Facts) -> str:
    names = json.dumps(facts.names).encode()
    return hashlib.sha256(names + np.ascontiguousarray(facts.values).tobytes()).hexdigest()


def rows_per_block(shape: tuple[int, ...], dtype: Any, block_bytes: int = _CHUNK_BYTES) -> int:
    """Return how many rows of ``shape[1:]`` make a block of about `block_bytes`, at least one."""
    row_bytes = math.prod(shape[1:]) * int(np.dtype(dtype).itemsize)
    return max(1, min(int(shape[0]), block_bytes // max(1, row_bytes)))


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of the packages that write a file, for whoever looks into it later."""
    return {name: version(name) for name in ("featcache", "tensorflow", "keras", "numpy", "h5py", "pillow")}


def check_bytes(path: Path) -> None:
    """Read a shard in full and compare it with its name.

    Raises
    ------
    DamagedShardError
        Its bytes have changed.
    ShardError
        It is missing.
    StoreError
        It cannot be read now.
    """
    try:
        whole = _has_name_of_content(path, path.stem)
    except FileNotFoundError:
        raise ShardError(f"shard {path} is missing") from None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    if not whole:
        raise DamagedShardError(path)


def _has_name_of_content(path: Path, name: str) -> bool:
    return file_sha256(path)[:_NAME_LENGTH] == name


def _unreadable(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"shard {path} cannot be read: {reason}. It is left as it is; correct the cause and run again"
    )


def read_keys(path: Path, base: dict[str, Any]) -> ShardKeys:
    """Read which rows a shard holds.

    Parameters
    ----------
    path : Path
    base : dict
        What its features must have been made with.

    Raises
    ------
    ShardError
        The shard is missing, or damaged (`DamagedShardError`).
    StoreError
        It cannot be read now.
    FormatError
        A newer version wrote it, or it is of another base.
    """

    def read(file: Any) -> ShardKeys:
        if json_attribute(file.attrs, "base") != base:
            raise FormatError(f"shard {path} was made with another base than its folder says")
        rows = len(dataset(file, VIEW, (None,), np.int64))
        digest = dataset(file, DIGEST, (rows, DIGEST_BYTES), np.uint8)
        keys = ShardKeys(np.asarray(digest[:]), np.asarray(file[VIEW][:]))
        # shards of version 0.1 have no such hash
        known = text_attribute(file.attrs, KEYS_HASH) if KEYS_HASH in file.attrs else None
        if known not in (None, _keys_hash(keys.digest, keys.view)):
            raise FormatError(f"shard {path}: the hash of its keys is wrong")
        return keys

    return _from_shard(path, read)


def read_facts(path: Path) -> Facts | None:
    """Read the facts of a shard's photos; None if it has none, as shards of earlier versions.

    Raises
    ------
    ShardError, StoreError, FormatError
        As `read_keys`.
    """

    def read(file: Any) -> Facts | None:
        if FACTS not in file:
            return None
        rows = len(dataset(file, VIEW, (None,), np.int64))
        names = tuple(map(str, json_attribute(file.attrs, FACT_NAMES)["names"]))
        facts = Facts(names, np.asarray(dataset(file, FACTS, (rows, len(names)), np.float32)[:]))
        if text_attribute(file.attrs, FACTS_HASH) != _facts_hash(facts):
            raise FormatError(f"shard {path}: the hash of its facts is wrong")
        return facts

    return _from_shard(path, read)


def read_rows(path: Path, start: int, stop: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Read rows ``start`` to ``stop`` (excluded) of a shard's features; their checksums are compared.

    Parameters
    ----------
    path : Path
    start, stop : int
    shape : tuple of int
        Of one row.
    dtype : dtype

    Raises
    ------
    ShardError, StoreError, FormatError
        As `read_keys`, or the shard has no such rows.
    """

    def read(file: Any) -> NDArray[Any]:
        features = dataset(file, FEATURES, (None, *shape), dtype)
        if not 0 <= start < stop <= len(features):
            raise FormatError(f"shard {path} has {len(features)} rows; rows {start} to {stop} are asked for")
        if BLOCK_HASHES not in file:  # version 0.1
            return np.asarray(features[start:stop])
        return _checked_rows(file, features, start, stop, path)

    return _from_shard(path, read)


def _checked_rows(file: Any, features: Any, start: int, stop: int, path: Path) -> NDArray[Any]:
    """Read whole blocks of rows, compare their hashes and return the rows that are asked for."""
    rows = features.chunks[0]
    first, last = start // rows, -(-stop // rows)
    found = np.asarray(features[first * rows : last * rows])
    expected = dataset(file, BLOCK_HASHES, (-(-len(features) // rows), 32), np.uint8)[first:last]
    if not np.array_equal(_block_hashes(found, rows), expected):
        raise FormatError(f"shard {path}: the hash of a block of features is wrong")
    return found[start - first * rows : stop - first * rows]


def _from_shard(path: Path, read: Callable[[Any], T]) -> T:
    """Return what `read` reads from the open shard; on an error, find out whether the shard is damaged."""
    try:
        with open_hdf5(path) as file:
            check_format(file.attrs.get("format"), SHARD_FORMAT, f"shard {path}")
            return read(file)
    except (FeatcacheError, *HDF5_ERRORS) as error:
        # the message of HDF5 does not tell damage from a disk that cannot be read; the hash does
        check_bytes(path)
        if isinstance(error, FeatcacheError):
            raise
        raise _unreadable(path, one_line(error)) from None
