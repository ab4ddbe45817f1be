"""The first line of a manifest: which columns it has, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featcache.errors import DataError, did_you_mean
from featcache.images.wording import some

_COLUMNS = ("path", "label", "split", "group", "weight")
_SYNONYMS = {
    "path": {"file", "filename", "filepath", "image", "img", "imagepath", "imagename", "photo", "name", "id"}
    | {"imageid", "imagefile", "files", "images", "paths"},
    "label": {
        "class",
        "classname",
        "classes",
        "labels",
        "labelname",
        "category",
        "target",
        "y",
        "species",
        "tag",
    }
    | {"tags", "diagnosis"},
    "split": {"set", "subset", "partition", "usage", "phase", "splits"},
    "group": {"groups", "groupid", "patient", "patientid", "subject", "subjectid", "animal", "animalid"}
    | {"individual", "individualid", "scene", "sceneid", "burst", "burstid", "case", "caseid"},
    "weight": {"weights", "sampleweight", "sampleweights"},
}

_MARKS = ("0", "1", "0.0", "1.0")  # columns of one class each, with 1 for the photos of the class


@dataclass(frozen=True)
class Header:
    """The columns of a manifest.

    Attributes
    ----------
    names : tuple of str
        As they are written, without empty ones at the end.
    where : dict of str to int
        Index of path and label, and of split, group and weight if they are there. Their case is ignored.
    """

    names: tuple[str, ...]
    where: Mapping[str, int]

    @classmethod
    def of(cls, source: str, header: Sequence[str], row: Sequence[str]) -> Header:
        """Find the columns.

        Parameters
        ----------
        source : str
            What to call the line in messages.
        header : sequence of str
            Its values.
        row : sequence of str
            The values of the next line, for the message about a missing column.

        Raises
        ------
        DataError
            A column is missing or there twice.
        """
        names = [name.strip() for name in header]
        while names and not names[-1]:
            names.pop()
        folded = [name.casefold() for name in names]
        for column in _COLUMNS:
            if folded.count(column) > 1:
                raise DataError(
                    f"{source}: {folded.count(column)} columns are named {column!r}; keep one of them"
                )
        missing = [column for column in ("path", "label") if column not in folded]
        if missing:
            raise DataError(f"{source}: no column {missing[0]!r}{_remedy(names, missing, row)}")
        return cls(tuple(names), {name: folded.index(name) for name in _COLUMNS if name in folded})

    @property
    def unused(self) -> list[str]:
        """Names of the other columns."""
        return [name for index, name in enumerate(self.names) if name and index not in self.where.values()]


def is_synonym(name: str, column: str) -> bool:
    """Whether a column's name is one that others give to path, label, split, group or weight."""
    return re.sub(r"[\W_]", "", name.casefold()) in _SYNONYMS[column]


def _remedy(names: Sequence[str], missing: Sequence[str], row: Sequence[str]) -> str:
    values = zip(names, row, strict=False)
    marks = [name for name, value in values if name.casefold() != "path" and value.strip() in _MARKS]
    if missing == ["label"] and len(marks) > 1 and not any(is_synonym(name, "label") for name in names):
        return f", but columns of 0 and 1: {some(marks)}. A photo has one label: name it in one column, label"
    text = (
        f"; found {some(names)}. The first line must be path,label, with commas; split, group and weight may "
        "follow."
    )
    meant = {column: name for column in missing for name in names if is_synonym(name, column)}
    if meant:
        renamed = " and ".join(f"{name!r} to {column!r}" for column, name in meant.items())
        return f"{text} Did you mean to rename {renamed}?"
    return text + next((hint for name in names if (hint := did_you_mean(name, missing))), "")
