"""Reading ``features.h5`` and packed feature files.

A feature file is checked when it is opened: the seal before HDF5 parses it, then all that its splits say of
themselves, then the shards that it needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featcache.errors import FeatcacheError, FormatError, ShardError, StoreError
from featcache.files import open_regular
from featcache.store.base_store import BaseStore
from featcache.store.format import (
    FEATURE_FORMAT,
    FINDINGS,
    GROUPS,
    PATH,
    REASON,
    SHARDS,
    SKIPPED,
    check_format,
)
from featcache.store.reading import (
    HDF5_ERRORS,
    child,
    json_attribute,
    json_object,
    one_line,
    open_hdf5,
    text_attribute,
    texts,
    texts_attribute,
)
from featcache.store.seal import HDF5_SIGNATURE, USER_BLOCK, SealError, check_seal, format_of
from featcache.store.shards import is_shard_name
from featcache.store.split import AGAIN, FileFacts, Split

_SPLIT_ORDER = {"train": 0, "validation": 1, "test": 2}
_MAX_DIMENSIONS = 8


class Features:
    """An open feature file. Use it as ``features["train"].load()``; it closes with ``close`` or ``with``.

    Parameters
    ----------
    path : path
        A ``features.h5`` or a packed file.
    cache : path, optional
        The user's own store. A damaged shard in it is set aside, so that the next extraction computes its
        rows again. Any other store that the file names is only read.

    Attributes
    ----------
    path : Path
    classes : tuple of str
    base : dict
        What the features were made with.
    recipe : dict
        The recipe they were made for.
    skipped : list of (path, reason)
    findings : list of dict
        What should be looked at in the photos: ``kind``, ``count``, ``photos`` (at most 20) and ``text``.
    groups : tuple of str
        Names of the groups of photos; empty if no photo has one.

    Raises
    ------
    FormatError
        The file is missing, not a feature file, damaged or of a newer format.
    ShardError
        A shard is missing, cut or damaged; the message names it.
    StoreError
        The file or a shard cannot be read now.
    """

    def __init__(self, path: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path)
        self._cache = None if cache is None else Path(cache)
        with _one_line_errors(self.path):
            number = _checked_format(self.path)
            self._file = open_hdf5(self.path)
            try:
                self._read_contents(number)
                self._check_shards()
            except BaseException:
                self._file.close()
                raise

    def _read_contents(self, number: int | None) -> None:
        attributes = self._file.attrs
        found = check_format(attributes.get("format"), FEATURE_FORMAT, str(self.path))
        if found != (number or 1):
            raise ValueError(f"its format is {found}, and {number or 1} by its first bytes")
        self.classes = tuple(texts_attribute(attributes, "classes"))
        self.base = json_attribute(attributes, "base")
        self.recipe = json_attribute(attributes, "recipe")
        skipped = child(self._file, SKIPPED, h5py.Group)
        self.skipped = list(zip(texts(skipped, PATH), texts(skipped, REASON), strict=True))
        # files of format 1 have none
        self.findings = (
            [json_object(text) for text in texts(self._file, FINDINGS)] if FINDINGS in self._file else []
        )
        self.groups = tuple(texts(self._file, GROUPS)) if GROUPS in self._file else ()
        self._facts = self._read_facts(found)
        self._splits = {
            name: Split(child(self._file, name, h5py.Group), self._facts)
            for name in sorted(set(self._file) - {SHARDS, SKIPPED, FINDINGS, GROUPS}, key=_split_order)
        }

    def _read_facts(self, number: int) -> FileFacts:
        shape, dtype = _feature_shape(self.base), np.dtype(self.base["dtype"])
        if dtype.kind != "f":
            raise ValueError(f"the features have the type {dtype}")
        names = texts(self._file, SHARDS) if SHARDS in self._file else []
        for name in names:
            if not is_shard_name(name):
                raise ValueError(f"{name!r} is not the name of a shard")
        store = self._named_store() if SHARDS in self._file else None
        return FileFacts(self.path, number, len(self.classes), shape, dtype, store, names, len(self.groups))

    def _named_store(self) -> BaseStore:
        folder = Path(text_attribute(self._file.attrs, "store")).parent
        own = self._cache is not None and folder.parent.resolve() == self._cache.resolve()
        return BaseStore(folder, self.base, read_only=not own)

    @property
    def packed(self) -> bool:
        """Whether the file holds its features itself."""
        return self._facts.store is None

    def _check_shards(self) -> None:
        if self._facts.store is not None:
            try:
                self._facts.store.check(self._facts.shards)
            except ShardError as error:
                raise ShardError(f"{error}; {self.path} needs it. {AGAIN.capitalize()}") from None

    @property
    def splits(self) -> list[str]:
        """Names of the splits that the file has, in the order train, validation, test."""
        return list(self._splits)

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
        return self._splits[split]

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


def _split_order(name: str) -> tuple[int, str]:
    return _SPLIT_ORDER.get(name, len(_SPLIT_ORDER)), name


def _feature_shape(base: dict[str, Any]) -> tuple[int, ...]:
    shape = base["feature_shape"]
    if not isinstance(shape, list) or not 0 < len(shape) <= _MAX_DIMENSIONS:
        raise ValueError(f"the shape of the features is {shape!r}")
    if not all(isinstance(length, int) and length > 0 for length in shape):
        raise ValueError(f"the shape of the features is {shape!r}")
    return tuple(shape)


def _checked_format(path: Path) -> int | None:
    """Compare the file with its seal and return its format number; None if it has no seal."""
    with open_regular(path) as file:
        start = file.read(USER_BLOCK)
        if start.startswith(HDF5_SIGNATURE):
            return None
        number = format_of(start)
        if number is None:
            raise FormatError(f"{path} is not a feature file; `featcache features RECIPE` writes one")
        check_format(number, FEATURE_FORMAT, str(path))
        check_seal(file)
        return number


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Turn what a missing, unreadable, damaged or hostile file raises into an error of one line."""
    try:
        yield
    except FeatcacheError:
        raise
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist; `featcache features RECIPE` writes one") from None
    except SealError as error:
        raise FormatError(f"{path} is damaged: {error}; {AGAIN}") from None
    except IsADirectoryError:
        raise FormatError(f"{path} is a folder; the path of a feature file is expected") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or one_line(error)}") from None
    except HDF5_ERRORS as error:
        raise FormatError(f"{path} is not a valid feature file: {one_line(error)}; {AGAIN}") from None
