"""Reads a manifest: a CSV file with the columns path, label and, where it divides the photos, split."""

from __future__ import annotations

import csv
import errno
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from featcache.errors import DataError, did_you_mean
from featcache.files import read_regular
from featcache.images.folders import is_candidate
from featcache.images.rows import SPLIT_WORDS, FoundPhoto
from featcache.images.wording import some

_SURPLUS = "values without a column"
_MOST_BYTES = 256 << 20
"""A larger file is not read: a line has about 60 bytes, which makes four million photos."""


def read_manifest(manifest: Path) -> list[FoundPhoto]:
    """Return the photos that a manifest lists.

    Raises
    ------
    DataError
        The file cannot be read, or a line of it is invalid; the message has the line's number.
    """
    source = f"data.manifest = {manifest}"
    try:
        # utf-8-sig: Excel puts a byte order mark in front
        text = read_regular(manifest, _MOST_BYTES).decode("utf-8-sig")
        photos = list(_read_lines(source, manifest.parent, io.StringIO(text, newline="")))
    except FileNotFoundError:
        raise DataError(f"{source} does not exist (seen from {Path.cwd()}); give a CSV file") from None
    except IsADirectoryError:
        raise DataError(f"{source} is a folder; give a CSV file here, or the folder as data.root") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text: {error.reason}; save it as CSV UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{source} is not a CSV file: {error}") from None
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}") from None
    if not photos:
        raise DataError(f"{source} lists no photo; give lines of path,label below its first line")
    return photos


def _read_lines(source: str, folder: Path, file: Iterable[str]) -> Iterator[FoundPhoto]:
    reader = csv.DictReader(file, restval="", restkey=_SURPLUS)
    columns = [name.strip() for name in reader.fieldnames or []]
    for needed in ("path", "label"):
        if needed not in columns:
            raise DataError(
                f"{source} line 1: no column {needed!r}; found {some(columns)}. The first line must be "
                f"path,label or path,label,split, with commas"
            )
    reader.fieldnames = columns
    for line in reader:
        yield _read_line(f"{source} line {reader.line_num}", folder, line)


def _read_line(where: str, folder: Path, line: dict[str, Any]) -> FoundPhoto:
    if _SURPLUS in line:
        raise DataError(f"{where}: more values than columns; put a path with a comma into double quotes")
    if not line["path"].strip():
        raise DataError(f"{where}: path is empty; give the photo's path")
    if not line["label"].strip():
        raise DataError(f"{where}: label is empty; give {line['path']} a label or remove the line")
    path = folder / line["path"].strip()
    if not is_candidate(str(path)) and (fault := _fault(path)):
        raise DataError(f"{where}: {path} {fault}; paths are relative to the manifest's folder")
    return FoundPhoto(
        str(path), line["label"].strip(), _split_word(where, line["split"]) if "split" in line else ""
    )


def _fault(path: Path) -> str:
    """Say why a path is not that of a photo; an empty text where only reading it can tell."""
    try:
        path.stat()
    except OSError as error:
        return "does not exist" if error.errno in (errno.ENOENT, errno.ENOTDIR) else ""
    except ValueError:
        return "contains a NUL character"
    return "is a folder, not a file" if path.is_dir() else "is not a regular file"


def _split_word(where: str, word: str) -> str:
    split = SPLIT_WORDS.get(word.strip().lower())
    if split is None:
        raise DataError(
            f"{where}: split {word!r} is none of {', '.join(SPLIT_WORDS)}.{did_you_mean(word, SPLIT_WORDS)}"
        )
    return split
