"""What `Model.predict` is given, as photos in order."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from featcache.errors import DataError
from featcache.featurize import Photo
from featcache.images.folders import photo_files
from featcache.images.memory import ARRAYS, content_of, is_in_memory, why_no_photo


def photos_of(given: Any) -> list[Photo]:
    """Return the photos that something stands for, folders opened, in order.

    Parameters
    ----------
    given : path, photo in memory, or iterable of these
        What is in an iterable and is neither becomes a photo that cannot be decoded.

    Raises
    ------
    DataError
        A path does not exist, a folder holds no file, or `given` is none of these.
    """
    photos: list[Photo] = []
    for one in _listed(given):
        if isinstance(one, str | os.PathLike):
            photos.extend(Photo(path) for path in _files_at(Path(one)))
        else:
            photos.append(Photo("", content=content_of(one)))
    return photos


def _listed(given: Any) -> list[Any]:
    # a string is iterable, too: by its characters; bytes by their numbers, a file by its lines
    if isinstance(given, str | os.PathLike) or is_in_memory(given):
        return [given]
    try:
        return list(given)
    except TypeError:
        raise DataError(
            f"{type(given).__name__} is no photo; give paths, folders, bytes, file objects, Pillow images, "
            f"arrays ({ARRAYS}), or a list of these"
        ) from None


def expand(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the files that a path or some paths stand for, folders opened, in order.

    Raises
    ------
    DataError
        A path does not exist, or a folder holds no file.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    return [file for path in given for file in _files_at(Path(path))]


def _files_at(path: Path) -> list[str]:
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} does not exist; give photos or a folder of photos") from None
    except (OSError, ValueError):
        is_folder = False  # reading it fails, with the reason, and the other photos are classified
    if not is_folder:
        return [str(path)]
    inside = photo_files(path)
    if not inside:
        raise DataError(f"the folder {path} holds no file; give photos or a folder of photos")
    return inside


def checked_array(array: Any) -> Any:
    """Return an array as photos (n, …); one photo gets the first axis.

    Parameters
    ----------
    array : array
        One photo, or several of four axes.

    Raises
    ------
    DataError
        The shape or the dtype is another.
    """
    shape = tuple(array.shape)
    one = shape[1:] if len(shape) == 4 else shape
    if reason := why_no_photo(one, array.dtype):
        whole = reason.replace(str(one), str(shape), 1)
        raise DataError(f"{whole}; or (n, height, width, channels) for n photos")
    return array if len(shape) == 4 else array[None]
