"""Checks the photos of a data set: unknown labels, copies, and splits or classes without photos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from featcache.errors import DataError, did_you_mean
from featcache.images.findings import Finding, Kind
from featcache.images.rows import FoundPhoto, ImageRow, Notes
from featcache.images.source import digest_of
from featcache.images.wording import some

_REMEDY = "add photos, change the shares in [data], or draw with another data.seed"


def check_labels(source: str, photos: Sequence[FoundPhoto]) -> None:
    """Raise a DataError for a label that train lacks, and for a single class."""
    known = sorted({photo.label for photo in photos if photo.split in ("", "train")})
    for photo in photos:
        if photo.label not in known:
            raise DataError(
                f"{photo.path} in {photo.split} has the label {photo.label!r}, which train lacks; train has "
                f"{some(known)}.{did_you_mean(photo.label, known)}"
            )
    if len(known) == 1:
        raise DataError(
            f"{source} holds one class only, {known[0]!r}; a classifier needs two at least. Give the folder "
            "that holds the class folders themselves, or add the photos of another class"
        )


def warn_of_copies(rows: Sequence[ImageRow], notes: Notes) -> None:
    """Look for equal photos under two labels, or in two splits of the user's own division."""
    copies: dict[bytes, list[ImageRow]] = defaultdict(list)
    for row in rows:
        copies[row.digest].append(row)
    copies.pop(digest_of(b""), None)  # empty files are no photos; they are reported when they are decoded
    kinds: tuple[tuple[str, Kind, str], ...] = (
        ("label", "copies_across_labels", "at least one of the labels must be wrong"),
        (
            "split",
            "copies_across_splits",
            "scores on them say nothing about new photos; remove them from one of the two",
        ),
    )
    for what, kind, fault in kinds:
        twice = [same for same in copies.values() if len({getattr(row, what) for row in same}) > 1]
        if twice:
            one, other = _example(twice[0], what)
            text = (
                f"identical photos have two {what}s ({len(twice)} in all, for example {one} and {other}): "
                f"{fault}."
            )
            photos = tuple(row.path for same in twice for row in same)
            notes.findings.append(Finding(kind, photos, text))


def _example(same: Sequence[ImageRow], what: str) -> tuple[str, str]:
    first = same[0]
    other = next(row for row in same if getattr(row, what) != getattr(first, what))
    return f"{first.path} ({getattr(first, what)})", f"{other.path} ({getattr(other, what)})"


def check_splits(rows: list[ImageRow], splits: Sequence[str], classes: Sequence[str], notes: Notes) -> None:
    """Refuse an empty split and a class without photos in train; warn of one without photos elsewhere."""
    for split in splits:
        present = {row.label for row in rows if row.split == split}
        missing = [label for label in classes if label not in present]
        if not present:
            raise DataError(f"{split} would be empty; {_REMEDY}{_blame(notes)}")
        if missing and split == "train":
            raise DataError(f"train has no photo of {some(missing)} to learn from; {_REMEDY}{_blame(notes)}")
        if missing:
            text = f"{split} has no photo of {some(missing)}, so they are not scored; {_REMEDY}."
            notes.findings.append(Finding("class_missing", (), text))


def _blame(notes: Notes) -> str:
    if not notes.unreadable:
        return ""
    path, reason = notes.unreadable[0]
    return f". Unreadable: {len(notes.unreadable)} in all, for example {path}: {reason}"
