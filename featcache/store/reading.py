"""Reading HDF5 files whose content nobody vouches for.

HDF5 follows links into other files, fetches numbers from other files (external storage, virtual datasets),
allocates what a header declares, and reports what is wrong with exceptions of many kinds. The functions here
open only what is stored in the file itself, compare shape and type with what is expected, and bound sizes by
the size of the file before anything is allocated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

# What h5py and NumPy raise for a damaged or hostile file. UnicodeDecodeError and JSONDecodeError are
# ValueErrors, RecursionError is a RuntimeError.
HDF5_ERRORS = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    RuntimeError,
    MemoryError,
    OverflowError,
)
_STRINGS_AT_ONCE = 1024
# an attribute's strings are 16 bytes each here: a million of them
_LONGEST_ATTRIBUTE = 16 << 20


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading, without HDF5's lock: files of the store never change once they have a name."""
    return h5py.File(path, "r", locking=False)


def one_line(error: BaseException) -> str:
    """Return what an exception says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def child(group: Any, name: str, kind: type) -> Any:
    """Return a member of a group that is stored in the same file.

    Parameters
    ----------
    group : h5py.Group
    name : str
    kind : type
        ``h5py.Group`` or ``h5py.Dataset``.

    Raises
    ------
    ValueError
        It is a soft or external link, or of another kind.
    KeyError
        There is none.
    """
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name!r} is a link to somewhere else")
    member = group[name]
    if not isinstance(member, kind):
        raise ValueError(f"{name!r} is not a {kind.__name__.lower()}")
    return member


def dataset(group: Any, name: str, shape: Sequence[int | None], dtype: Any) -> Any:
    """Return a dataset that is safe to read.

    Parameters
    ----------
    group : h5py.Group
    name : str
    shape : sequence of int or None
        The expected shape; None allows any length.
    dtype : dtype or None
        The expected type; None allows strings only.

    Raises
    ------
    ValueError, KeyError
        Another shape, type or storage than expected, or more bytes declared than the file has.
    """
    data = child(group, name, h5py.Dataset)
    if data.shape is None or len(data.shape) != len(shape):
        raise ValueError(f"{name!r} has the shape {data.shape}; {len(shape)} dimensions are expected")
    if any(want not in (None, have) for have, want in zip(data.shape, shape, strict=True)):
        raise ValueError(f"{name!r} has the shape {data.shape}; expected is {tuple(shape)}")
    is_right = h5py.check_string_dtype(data.dtype) if dtype is None else data.dtype == dtype
    if not is_right:
        raise ValueError(f"{name!r} has the type {data.dtype}; expected is {dtype or 'text'}")
    _check_storage(data, name)
    return data


def _check_storage(data: Any, name: str) -> None:
    """Make sure that all bytes of a dataset are in its file, uncompressed."""
    if data.external or data.is_virtual:
        raise ValueError(f"{name!r} is stored in another file")
    properties = data.id.get_create_plist()
    filters = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
    if not filters <= {h5py.h5z.FILTER_FLETCHER32}:
        raise ValueError(f"{name!r} is compressed; files of featcache are not")
    declared = math.prod(data.shape) * data.dtype.itemsize
    at_most = data.file.id.get_filesize()
    chunk = math.prod(data.chunks or ()) * data.dtype.itemsize
    if data.id.get_storage_size() < declared or max(declared, chunk) > at_most:
        raise ValueError(f"{name!r} declares {declared:,} bytes, which the file does not have")


def texts(group: Any, name: str, count: int | None = None) -> list[str]:
    """Read a one-dimensional dataset of strings; bytes that are not UTF-8 become surrogates.

    Raises
    ------
    ValueError, KeyError
        As `dataset`, or the strings are longer than the file.
    """
    data = dataset(group, name, (count,), None)
    left = data.file.id.get_filesize()
    found: list[str] = []
    for start in range(0, len(data), _STRINGS_AT_ONCE):
        block = [bytes(text) for text in data[start : start + _STRINGS_AT_ONCE]]
        # files of format 1 have strings of any length, and many could point to the same long one
        left -= sum(map(len, block))
        if left < 0:
            raise ValueError(f"the strings of {name!r} are longer than the file")
        found.extend(text.decode("utf-8", "surrogateescape") for text in block)
    return found


def text_array(values: Sequence[str]) -> NDArray[Any]:
    """Return strings as an array of fixed length in UTF-8, which every HDF5 tool reads.

    File names that are not UTF-8 keep their bytes.
    """
    encoded = [_encoded(value) for value in values]
    longest = max(map(len, encoded), default=1)
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, longest)))


def set_text(attributes: Any, name: str, value: str | Sequence[str]) -> None:
    """Write an attribute of text; bytes of file names that are not UTF-8 are kept."""
    data = _encoded(value) if isinstance(value, str) else [_encoded(one) for one in value]
    attributes.create(name, np.array(data, dtype=h5py.string_dtype()), dtype=h5py.string_dtype())


def _encoded(value: str) -> bytes:
    # HDF5's strings end at the first zero byte
    return value.replace("\0", "\\0").encode("utf-8", "surrogateescape")


def text_attribute(attributes: Any, name: str) -> str:
    """Return an attribute that is one string.

    Raises
    ------
    ValueError, KeyError
        It is missing or of another type.
    """
    _check_attribute(attributes, name, dimensions=0)
    value = attributes[name]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise ValueError(f"the attribute {name!r} is not text")
    return value


def texts_attribute(attributes: Any, name: str) -> list[str]:
    """Return an attribute that is a one-dimensional array of strings.

    Raises
    ------
    ValueError, KeyError
        It is missing or of another type.
    """
    _check_attribute(attributes, name, dimensions=1)
    values = list(attributes[name])
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"the attribute {name!r} is not a list of text")
    return [str(value) for value in values]


def _check_attribute(attributes: Any, name: str, dimensions: int) -> None:
    found = attributes.get_id(name)
    if len(found.shape) != dimensions or found.get_storage_size() > _LONGEST_ATTRIBUTE:
        raise ValueError(f"the attribute {name!r} has the shape {found.shape}")


def json_attribute(attributes: Any, name: str) -> dict[str, Any]:
    """Return an attribute that is a JSON object.

    Raises
    ------
    ValueError, KeyError, RecursionError
        It is missing or something else.
    """
    return json_object(text_attribute(attributes, name))


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text is.

    Raises
    ------
    ValueError, RecursionError
        It is something else.
    """
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text[:50]!r} is not a JSON object")
    return value
