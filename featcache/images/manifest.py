"""Reads a manifest: a CSV file with the columns path and label, and perhaps split, group and weight."""

from __future__ import annotations

import csv
import errno
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from featcache.errors import DataError, did_you_mean
from featcache.files import read_regular
from featcache.images.findings import Finding, Kind
from featcache.images.folders import is_candidate
from featcache.images.manifest_header import Header, is_synonym
from featcache.images.manifest_text import ManifestText
from featcache.images.rows import FoundPhoto, Notes
from featcache.images.split_names import plain_split
from featcache.images.wording import some

_MOST_BYTES = 256 << 20
"""A larger file is not read: a line has about 60 bytes, which makes four million photos."""

_SHOWN = 5

_MOST_WEIGHT = 1_000_000
"""Sums of such weights stay exact enough in float32, in which Dense heads are trained."""
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods; .xls


def read_manifest(manifest: Path, notes: Notes, skip_missing: bool = False) -> list[FoundPhoto]:
    """Return the photos that a manifest lists.

    Parameters
    ----------
    manifest : Path
        CSV in UTF-8, UTF-16 or cp1252, separated by commas, semicolons, tabs or vertical bars.
    notes : Notes
        Receives what was guessed and what was left out.
    skip_missing : bool, default False
        Return the photos that do not exist, too; reading them says that they do not.

    Raises
    ------
    DataError
        The file cannot be read, or lines of it cannot be used; the message has their numbers.
    """
    source = f"data.manifest = {manifest}"
    try:
        content = read_regular(manifest, _MOST_BYTES)
        if content.startswith(_WORKBOOKS):
            raise DataError(f"{source} is a workbook of a spreadsheet program; save it as CSV")
        return _read(source, manifest, ManifestText.of(content), notes, skip_missing)
    except FileNotFoundError:
        raise DataError(f"{source} does not exist (seen from {Path.cwd()}); give a CSV file") from None
    except IsADirectoryError:
        raise DataError(f"{source} is a folder; give a CSV file here, or the folder as data.root") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not text: {error.reason}; save it as CSV UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{source} is not a CSV file: {error}") from None
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}") from None


def _read(
    source: str, manifest: Path, text: ManifestText, notes: Notes, skip_missing: bool
) -> list[FoundPhoto]:
    rows = text.rows()
    line, names = next(rows, (1, []))
    first = next(rows, None)
    header = Header.of(f"{source} line {line}", names, first[1] if first else [])
    reader = _Reader(manifest.parent, header, skip_missing)
    every = chain([first] if first else [], rows)
    photos = [photo for line, values in every if (photo := reader.read(line, values)) is not None]
    reader.refuse(source)
    if not photos:
        raise DataError(f"{source} lists no photo; give lines of path,label below its first line")
    different = list(dict.fromkeys(photos))
    _refuse_contradictions(source, different, header)
    _refuse_without_weight(source, different)
    reader.counts["repeated"] = len(photos) - len(different)
    _note(source, text, reader, notes)
    return different


def _refuse_contradictions(source: str, photos: Sequence[FoundPhoto], header: Header) -> None:
    """Refuse rows that give the same photo two groups or two weights."""
    if not {"group", "weight"} & header.where.keys():
        return
    counts = Counter((photo.path, photo.label, photo.split) for photo in photos)
    twice = [path for (path, _, _), count in counts.items() if count > 1]
    if twice:
        raise DataError(
            f"{source}: {len(twice):,} photos are listed again with another group or weight, for example "
            f"{twice[0]}; keep one line of each"
        )


def _refuse_without_weight(source: str, photos: Sequence[FoundPhoto]) -> None:
    if not any(photo.weight for photo in photos):
        raise DataError(
            f"{source}: all weights are 0, so there is nothing to learn from; give photos that count a "
            "weight above 0, such as 1, or remove the column weight"
        )


class _UnusableRowError(Exception):
    """Why a row is not used."""


class _Reader:
    """Reads rows one by one and collects all that cannot be used.

    Attributes
    ----------
    counts : Counter of str
        Rows that were read in an unusual way, by what was unusual, and those with a group.
    """

    def __init__(self, folder: Path, header: Header, skip_missing: bool) -> None:
        self.folder, self.header = folder, header
        self._prefix = "" if folder == Path() else str(folder)
        self.counts: Counter[str] = Counter()
        self._skip_missing = skip_missing
        self._faults: list[tuple[int, str]] = []
        self._missing = 0

    def read(self, line: int, values: Sequence[str]) -> FoundPhoto | None:
        """Return the photo of a row; None where it is empty or cannot be used."""
        if not any(value.strip() for value in values):
            self.counts["empty"] += 1
            return None
        try:
            row = _columns_of(values, self.header)
            # interned: a hundred thousand rows have a few labels, and fewer groups than rows
            label, group = sys.intern(row["label"]), sys.intern(_group_of(row.get("group", "")))
            self.counts["grouped"] += bool(group)
            weight = _weight_of(row["weight"]) if "weight" in row else 1.0
            return FoundPhoto(self._path(row["path"]), label, row.get("split", ""), group, weight)
        except _UnusableRowError as reason:
            self._faults.append((line, str(reason)))
            return None

    def refuse(self, source: str) -> None:
        """Raise a DataError with the number and the reason of the lines that cannot be used."""
        if not self._faults:
            return
        count = len(self._faults)
        shown = "; ".join(f"line {line}: {fault}" for line, fault in self._faults[:_SHOWN])
        more = f"; and {count - _SHOWN:,} more" if count > _SHOWN else ""
        text = f"{source}: {count:,} {'lines' if count > 1 else 'line'} cannot be used. {shown}{more}"
        if self._missing:
            text += (
                f". Files that do not exist: {self._missing:,}. Paths are relative to the manifest's "
                f"folder, {self.folder}; correct them, or skip them with --skip-missing "
                "(data.skip_missing = true)"
            )
        raise DataError(text)

    def _path(self, given: str) -> str:
        usual = self._joined(given)
        if is_candidate(usual):
            return usual
        path = self.folder / given
        for kind, other in _variants(given):
            if is_candidate(str(self.folder / other)):
                self.counts[kind] += 1
                return str(self.folder / other)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", given):
            raise _UnusableRowError(
                f"{given} is an address, and photos are not fetched; download it and give the file's path"
            )
        fault = _fault(path)
        if fault == _MISSING and not self._skip_missing:
            self._missing += 1
            raise _UnusableRowError(f"{path} {fault}{_windows_hint(given)}")
        if fault not in ("", _MISSING):
            raise _UnusableRowError(f"{path} {fault}")
        return str(path)

    def _joined(self, given: str) -> str:
        """Return the path as `Path` would write it, which takes half of the time of reading a manifest."""
        if os.sep != "/" or "./" in given or "//" in given or given.endswith("/"):
            return str(self.folder / given)
        return os.path.join(self._prefix, given)  # noqa: PTH118


def _columns_of(values: Sequence[str], header: Header) -> dict[str, str]:
    """Return path and label of a row, and split, group and weight if there are such columns."""
    columns = len(header.names)
    if len(values) > columns and any(value.strip() for value in values[columns:]):
        raise _UnusableRowError("more values than columns; put a path with a comma into double quotes")
    row = {name: values[index].strip() for name, index in header.where.items() if index < len(values)}
    if any("\n" in value for value in row.values()):
        raise _UnusableRowError("a line break in a value; close the double quote that opens here")
    if not row.get("path"):
        raise _UnusableRowError("path is empty; give the photo's path")
    if not row.get("label"):
        raise _UnusableRowError(f"label is empty; give {row['path']} a label or remove the line")
    if len(values) < columns:
        raise _UnusableRowError(f"{len(values)} values for {columns} columns")
    if "split" in row:
        row["split"] = _split_of(row["split"])
    return row


def _split_of(word: str) -> str:
    split = plain_split(word)
    if split is None:
        allowed = ("train", "validation", "test")
        hint = did_you_mean(word, allowed)
        raise _UnusableRowError(f"split {word!r} is none of {', '.join(allowed)}.{hint}")
    return split


def _group_of(name: str) -> str:
    # two forms of Unicode look the same; as two groups they would divide what belongs together
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _weight_of(text: str) -> float:
    allowed = f"give a number from 0 to {_MOST_WEIGHT:,}"
    if not text:
        raise _UnusableRowError(f"weight is empty; {allowed}")
    try:
        weight = float(text)
    except ValueError:
        hint = " (with a decimal point)" if "," in text else ""
        raise _UnusableRowError(f"weight {text!r} is not a number; {allowed}{hint}") from None
    if not 0 <= weight <= _MOST_WEIGHT:
        raise _UnusableRowError(f"weight {text} is not allowed; {allowed}")
    return weight


def _variants(given: str) -> list[tuple[str, str]]:
    """Return other ways to write a path, each with what was unusual in it."""
    found = []
    if "\\" in given:
        found.append(("backslashes", given.replace("\\", "/")))
    if not given.isascii():
        found += [("forms", unicodedata.normalize(form, given)) for form in ("NFC", "NFD")]
    return found


def _windows_hint(given: str) -> str:
    if re.match(r"[A-Za-z]:[\\/]", given):
        return " (a path on a drive of Windows; give it relative to the manifest's folder, with /)"
    return " (it has backslashes, the separators of Windows; write /)" if "\\" in given else ""


_MISSING = "does not exist"


def _fault(path: Path) -> str:
    """Say why a path is not that of a photo; an empty text where only reading it can tell."""
    try:
        path.stat()
    except OSError as error:
        return _MISSING if error.errno in (errno.ENOENT, errno.ENOTDIR) else ""
    except ValueError:
        return "contains a NUL character"
    return "is a folder, not a file" if path.is_dir() else "is not a regular file"


def _note(source: str, text: ManifestText, reader: _Reader, notes: Notes) -> None:
    """Say what was guessed and what was left out."""
    counts, unused = reader.counts, reader.header.unused
    said: list[tuple[Kind, bool, str]] = [
        ("manifest_guess", bool(text.guesses), f"{source} was read {' and '.join(text.guesses)}."),
        (
            "manifest_guess",
            counts["backslashes"] > 0,
            f"{counts['backslashes']:,} paths of {source} have backslashes, which were read as /.",
        ),
        (
            "manifest_guess",
            counts["forms"] > 0,
            f"{counts['forms']:,} paths of {source} were found in another form of Unicode (NFC or NFD).",
        ),
        (
            "not_grouped",
            "group" in reader.header.where and counts["grouped"] == 0,
            f"the column group of {source} is empty: each photo is a group of its own.",
        ),
        ("empty_lines", counts["empty"] > 0, f"{counts['empty']:,} empty rows of {source} are left out."),
        (
            "repeated_lines",
            counts["repeated"] > 0,
            f"{counts['repeated']:,} rows of {source} repeat an earlier row and are left out.",
        ),
        (
            "unused_columns",
            bool(unused),
            f"columns of {source} are not used: {some(unused)}.{_renaming_hint(reader.header)}",
        ),
    ]
    notes.findings += [Finding(kind, (), text) for kind, is_so, text in said if is_so]


_MEANINGS = {
    "split": "says the split",
    "group": "says which photos must not be divided",
    "weight": "says how much a photo counts",
}


def _renaming_hint(header: Header) -> str:
    hints = ""
    for column, meaning in _MEANINGS.items():
        meant = [name for name in header.unused if is_synonym(name, column)]
        if meant and column not in header.where:
            hints += f" If {meant[0]!r} {meaning}, rename it to {column!r}."
    return hints
