"""Groups: photos of one animal, patient, scene or burst, which no draw and no fold may divide.

A group's name counts, wherever its photos lie: photos of two classes can be of one group. Equal photos in two
groups make these one group.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from featcache.errors import DataError
from featcache.images.findings import Finding
from featcache.images.rows import FoundPhoto, ImageRow, Notes
from featcache.images.source import digest_of
from featcache.images.wording import some
from featcache.recipe import DataSettings


def draw_key(group: str, digest: bytes) -> bytes:
    """Return what the draws of a photo depend on: its group's name or, without a group, its digest."""
    return b"group:" + group.encode("utf-8", "surrogateescape") if group else digest


def grouped_by_pattern(source: str, photos: Sequence[FoundPhoto], pattern: str) -> list[FoundPhoto]:
    """Give photos the groups that a regular expression finds in their file names.

    Parameters
    ----------
    source : str
        What to call the photos' source in messages.
    photos : sequence of FoundPhoto
    pattern : str
        With one group in parentheses; `re.search` looks for it in the name without its folders. A photo in
        whose name it is not found, or finds nothing in the parentheses, stays by itself.

    Raises
    ------
    DataError
        The photos have groups already, by a column of the manifest, or no name matches.
    """
    if any(photo.group for photo in photos):
        raise DataError(
            f"{source} has a column group, and data.group = {pattern!r} is given as well; keep one of them"
        )
    search = re.compile(pattern).search
    groups = [_name_in(search(photo.path.rpartition(os.sep)[2])) for photo in photos]
    if not any(groups):
        name = photos[0].path.rpartition(os.sep)[2]
        raise DataError(
            f"data.group = {pattern!r} is found in no file name, for example not in {name!r}; it is compared "
            "with names without their folders"
        )
    return [replace(photo, group=group) for photo, group in zip(photos, groups, strict=True)]


def _name_in(match: re.Match[str] | None) -> str:
    found = match.group(1) if match else None
    return sys.intern(unicodedata.normalize("NFC", found)) if found else ""


def check_groups(source: str, photos: Sequence[FoundPhoto], settings: DataSettings, notes: Notes) -> None:
    """Refuse groups that leave nothing to divide; note photos without a group, and groups in two splits.

    Raises
    ------
    DataError
        All photos are in one group, every class is a single group and its photos must be divided, there are
        no folders for ``data.group = "folder"``, or ``data.strict`` and a group is in two given splits.
    """
    if not any(photo.group for photo in photos):
        if settings.group is not None:
            raise DataError(
                f"{source}: data.group = {settings.group!r}, but no class folder holds a folder; put the "
                "photos of each group into a folder of its own, or give a regular expression for their names"
            )
        return
    _refuse_few(source, photos, settings)
    alone = tuple(photo.path for photo in photos if not photo.group)
    if alone:
        text = (
            f"{len(alone):,} of {len(photos):,} photos have no group, for example {alone[0]}; each is a "
            "group of its own."
        )
        notes.findings.append(Finding("not_grouped", alone, text))
    _note_divided(photos, settings, notes)


def _refuse_few(source: str, photos: Sequence[FoundPhoto], settings: DataSettings) -> None:
    of_class: dict[str, set[str]] = defaultdict(set)
    for photo in photos:
        of_class[photo.label].add(photo.group or photo.path)
    names = set().union(*of_class.values())
    if len(names) == 1:
        raise DataError(
            f"{source}: all photos are in one group, {next(iter(names))!r}, so none can be held out; give "
            "each animal, patient or scene a group of its own, or leave the groups out"
        )
    is_drawn = {photo.split for photo in photos} == {""} and settings.split.train < 1
    if is_drawn and all(len(found) == 1 for found in of_class.values()):
        raise DataError(
            f"{source}: all photos of each class are in one group, so a class can be learned or scored, not "
            "both; give each animal, patient or scene a group of its own, or leave the groups out"
        )


def _note_divided(photos: Sequence[FoundPhoto], settings: DataSettings, notes: Notes) -> None:
    """Note groups in two splits of the user's own; with folds train and validation are one."""
    splits: dict[str, set[str]] = defaultdict(set)
    for photo in photos:
        joined = settings.folds is not None and photo.split == "validation"
        splits[photo.group].add("train" if joined else photo.split)
    divided = sorted(name for name, found in splits.items() if name and len(found) > 1)
    if not divided:
        return
    found = sorted(splits[divided[0]])
    text = (
        f"groups are in two splits ({len(divided):,} in all, for example {divided[0]!r} in "
        f"{' and '.join(found)}): scores on them say little about new groups; keep each in one split"
    )
    if settings.strict:
        raise DataError(f"{text}, or leave --strict (data.strict) out")
    paths = tuple(photo.path for photo in photos if photo.group in set(divided))
    notes.findings.append(Finding("groups_across_splits", paths, f"{text}."))


def with_joined_groups(rows: list[ImageRow], notes: Notes) -> list[ImageRow]:
    """Make groups that hold equal photos one group, named as the first of them in the alphabet.

    A copy without a group goes into that of its twin.
    """
    if not any(row.group for row in rows):
        return rows
    first: dict[bytes, str] = {}
    above: dict[str, str] = {}  # from a group to one that it was joined to; to itself if to none

    def root(name: str) -> str:
        while above.setdefault(name, name) != name:
            above[name] = above[above[name]]
            name = above[name]
        return name

    empty = digest_of(b"")  # such files are no photos, and equal by chance
    for row in rows:
        if row.group and row.digest != empty:
            one, other = sorted((root(row.group), root(first.setdefault(row.digest, row.group))))
            above[other] = one
    joined = sorted(name for name in above if root(name) != name)
    if joined:
        count = len(joined) + len(set(map(root, joined)))
        text = (
            f"groups that hold identical photos are taken as one ({count:,} in all, for example "
            f"{some([root(joined[0]), joined[0]])})."
        )
        notes.findings.append(Finding("joined_groups", (), text))
    return [
        _in_group(row, root(name)) if (name := row.group or first.get(row.digest)) else row for row in rows
    ]


def _in_group(row: ImageRow, group: str) -> ImageRow:
    if row.group == group:
        return row
    return ImageRow(row.path, row.label, row.split, row.digest, group, row.weight)
