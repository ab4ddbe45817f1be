"""Shards: immutable HDF5 files of features, named by the hash of their bytes.

A shard is made in memory and written as plain bytes, so that a full disk or a kill can never leave a
half-made HDF5 file; and its name lets the bytes be checked before HDF5 parses a single one of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShardError
from featcache.files import file_sha256, written_whole
from featcache.store.format import DIGEST, DIGEST_BYTES, FEATURES, FORMAT, VIEW, check_format
from featcache.store.plan import Key

SUFFIX = ".h5"
_NAME_LENGTH = 32
# About this many bytes are read or checked at once: single-row chunks are slow, whole shards are wasteful.
_CHUNK_BYTES = 1 << 20


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


def write_shard(folder: Path, keys: Sequence[Key], features: NDArray[Any], base: dict[str, Any]) -> Path:
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

    Raises
    ------
    StoreError
        The folder cannot be written or the disk is full; nothing is left behind.
    ShardError
        What the disk gives back is not what was written.
    """
    data = _as_hdf5(keys, features, base)
    path = folder / f"{hashlib.sha256(data).hexdigest()[:_NAME_LENGTH]}{SUFFIX}"
    with written_whole(path) as aside:
        aside.write_bytes(data)
        if not _has_name_of_content(aside, path.stem):
            raise ShardError(f"{path}: the disk gave back other bytes than were written; check the disk")
    return path


def _as_hdf5(keys: Sequence[Key], features: NDArray[Any], base: dict[str, Any]) -> bytes:
    digest = np.frombuffer(b"".join(key.digest for key in keys), np.uint8).reshape(len(keys), DIGEST_BYTES)
    with h5py.File("shard", "w", driver="core", backing_store=False) as file:
        file.attrs["format"] = FORMAT
        file.attrs["base"] = json.dumps(base, sort_keys=True)
        file.attrs["versions"] = json.dumps(library_versions(), sort_keys=True)
        create_checked(file, FEATURES, features)
        create_checked(file, DIGEST, digest)
        create_checked(file, VIEW, np.array([key.view for key in keys], np.int64))
        file.flush()
        return bytes(file.id.get_file_image())


def create_checked(group: Any, name: str, data: NDArray[Any]) -> None:
    """Create a dataset with a checksum on every block of rows."""
    group.create_dataset(name, data=data, chunks=chunks_of(data.shape, data.dtype), fletcher32=True)


def chunks_of(shape: tuple[int, ...], dtype: Any) -> tuple[int, ...]:
    """Return the chunk shape for rows of ``shape[1:]``: whole rows, about one MiB of them."""
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
    rows = max(1, min(shape[0], _CHUNK_BYTES // max(1, row_bytes)))
    return (rows, *shape[1:])


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of the packages that write a file, for whoever looks into it later."""
    return {name: version(name) for name in ("featcache", "tensorflow", "keras", "numpy", "h5py", "pillow")}


def check_bytes(path: Path) -> None:
    """Read a shard in full and compare it with its name.

    Raises
    ------
    ShardError
        The shard is missing or its bytes have changed.
    """
    try:
        whole = _has_name_of_content(path, path.stem)
    except FileNotFoundError:
        raise ShardError(f"shard {path} is missing") from None
    except OSError as error:
        raise ShardError(f"shard {path} cannot be read: {error.strerror or error}") from None
    if not whole:
        raise ShardError(f"shard {path} is damaged: its bytes have changed since it was written")


def _has_name_of_content(path: Path, name: str) -> bool:
    return file_sha256(path)[:_NAME_LENGTH] == name


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
        The shard is missing, damaged or of another base.
    FormatError
        A newer version wrote it.
    """
    with open_shard(path) as file:
        check_format(file.attrs.get("format"), f"shard {path}")
        if json.loads(file.attrs["base"]) != base:
            raise ShardError(f"shard {path} was made with another base than its folder says")
        return ShardKeys(_read(file, DIGEST, path), _read(file, VIEW, path))


def read_rows(path: Path, start: int, stop: int) -> NDArray[Any]:
    """Read rows ``start`` to ``stop`` (excluded) of a shard's features; their checksums are compared.

    Raises
    ------
    ShardError
        The shard is missing or damaged.
    """
    with open_shard(path) as file:
        return _read(file, FEATURES, path, slice(start, stop))


def open_shard(path: Path) -> Any:
    """Open a shard for reading, as an ``h5py.File``.

    Raises
    ------
    ShardError
        It is missing or no HDF5 file any more.
    """
    if not path.is_file():
        raise ShardError(f"shard {path} is missing")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ShardError(f"shard {path} is damaged: {error}") from None


def _read(file: Any, name: str, path: Path, rows: slice = slice(None)) -> NDArray[Any]:
    try:
        return np.asarray(file[name][rows])
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        # what h5py raises for a wrong checksum, a lost dataset, a broken header
        raise ShardError(f"shard {path} is damaged: {error}") from None
