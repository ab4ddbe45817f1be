"""Zip archives and NumPy files, bounded before anything in them is unpacked or allocated."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, KeyError, ValueError, TypeError),
    *(NotImplementedError, RecursionError, MemoryError),
)
"""What a damaged or foreign archive makes zipfile, json and NumPy raise."""

# What is written here is stored without compression; a compressed archive of floats shrinks to half.
_LARGEST_RATIO = 20
_SLACK_BYTES = 1 << 20
_MOST_MEMBERS = 200_000


def open_archive(data: bytes) -> zipfile.ZipFile:
    """Open a zip archive whose members, with all arrays in them, are not much larger than it is itself.

    Parameters
    ----------
    data : bytes
        The archive. Members named ``*.npy`` are NumPy arrays, ``*.npz`` are archives of such.

    Raises
    ------
    ValueError
        It would unpack to more than 20 times its size, or an array's header declares another size than the
        member has, or objects, which are pickles.
    zipfile.BadZipFile
        It is damaged or no archive.
    """
    archive = zipfile.ZipFile(io.BytesIO(data))
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    most = _LARGEST_RATIO * len(data) + _SLACK_BYTES
    if unpacked > most or len(members) > _MOST_MEMBERS:
        raise ValueError(
            f"its {len(members):,} members unpack to {unpacked:,} bytes; at most {most:,} are allowed for an "
            f"archive of {len(data):,} bytes"
        )
    # reading a member as a whole unpacks it before its size and checksum are compared; this reads in pieces
    if (damaged := archive.testzip()) is not None:
        raise ValueError(f"its member {damaged} is not what the archive declares")
    for member in members:
        if member.filename.endswith(".npy"):
            _check_array(archive, member)
        elif member.filename.endswith(".npz"):
            open_archive(archive.read(member)).close()
    return archive


def read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` archive by name, after `open_archive` has checked it.

    Raises
    ------
    Exception
        One of `DAMAGE`.
    """
    open_archive(data).close()
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _check_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"{member.filename} has the array format {version}, which is not supported")
        shape, _, dtype = readers[version](file)
        declared = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or declared != member.file_size - file.tell():
            raise ValueError(
                f"{member.filename} declares an array of {shape} {dtype}, which it does not hold"
            )
