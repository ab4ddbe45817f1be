"""Checks the photos of a data set: unknown labels, copies, and splits or classes without photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from featcache.errors import DataError, did_you_mean
from featcache.images.findings import Finding, Kind
from featcache.images.rows import FoundPhoto, ImageRow, Notes
from featcache.images.source import digest_of
from featcache.images.wording import some

_REMEDY = "add photos, change the shares in [data], or draw with another data.seed"


def check_labels(source: str, photos: Sequence[FoundPhoto], learned: Collection[str]) -> None:
    """Raise a DataError for labels that the `learned` splits lack, and for a single class."""
    known = {photo.label for photo in photos if photo.split in learned}
    unknown = [photo for photo in photos if photo.label not in known]
    if unknown:
        first = unknown[0]
        labels = Counter(photo.label for photo in unknown)
        more = f" (and {len(labels) - 1:,} other labels)" if len(labels) > 1 else ""
        raise DataError(
            f"{first.path} in {first.split} has the label {first.label!r}, which train lacks{more}; "
            f"train has {some(sorted(known))}.{did_you_mean(first.label, known)}"
        )
    if len(known) == 1:
        raise DataError(
            f"{source} holds one class only, {next(iter(known))!r}; a classifier needs two at least. Give "
            "the folder that holds the class folders themselves, or add the photos of another class"
        )


def without_weight_zero(
    source: str, photos: list[FoundPhoto], learned: Collection[str], notes: Notes
) -> list[FoundPhoto]:
    """Leave out the photos of weight 0, which is noted.

    Raises
    ------
    DataError
        Nothing would be left of a class to learn from, or of a split of the user's own.
    """
    kept = [photo for photo in photos if photo.weight]
    if len(kept) == len(photos):
        return photos
    lost = sorted({photo.label for photo in photos} - {one.label for one in kept if one.split in learned})
    if lost:
        raise DataError(
            f"{source}: all photos of {some(lost)} to learn from have weight 0; give some of them a weight "
            "above 0, or remove the class"
        )
    unscored = sorted({photo.split for photo in photos} - {photo.split for photo in kept})
    if unscored:
        raise DataError(
            f"{source}: all photos of {some(unscored)} have weight 0; give some of them a weight above 0, or "
            "remove the split"
        )
    paths = tuple(photo.path for photo in photos if not photo.weight)
    text = f"{len(paths):,} photos of weight 0 are left out, for example {paths[0]}."
    notes.findings.append(Finding("weight_zero", paths, text))
    return kept


def warn_of_copies(rows: Sequence[ImageRow], notes: Notes) -> None:
    """Look for equal photos under two labels, or in two splits of the user's own division."""
    first: dict[bytes, ImageRow] = {}
    copies: dict[bytes, list[ImageRow]] = {}  # of those that are there twice: most are not
    for row in rows:
        one = first.setdefault(row.digest, row)
        if one is not row:
            copies.setdefault(row.digest, [one]).append(row)
    copies.pop(digest_of(b""), None)  # empty files are no photos; they are reported when they are decoded
    kinds: tuple[tuple[str, Kind, str], ...] = (
        (
            "label",
            "copies_across_labels",
            "at least one of the labels must be wrong; a photo has one label",
        ),
        (
            "split",
            "copies_across_splits",
            "scores on them say nothing about new photos; remove them from one of the two",
        ),
    )
    for what, kind, fault in kinds:
        twice = [same for same in copies.values() if len({getattr(row, what) for row in same}) > 1]
        if twice:
            left, right = _example(twice[0], what)
            text = (
                f"identical photos have two {what}s ({len(twice)} in all, for example {left} and {right}): "
                f"{fault}."
            )
            photos = tuple(row.path for same in twice for row in same)
            notes.findings.append(Finding(kind, photos, text))


def _example(same: Sequence[ImageRow], what: str) -> tuple[str, str]:
    first = same[0]
    other = next(row for row in same if getattr(row, what) != getattr(first, what))
    return f"{first.path} ({getattr(first, what)})", f"{other.path} ({getattr(other, what)})"


def check_splits(
    rows: Sequence[ImageRow],
    splits: Sequence[str],
    classes: Sequence[str],
    learned: Collection[str],
    notes: Notes,
) -> None:
    """Refuse an empty split and a class that is not learned; note a class without photos elsewhere.

    Parameters
    ----------
    rows : sequence of ImageRow
        All with a split.
    splits : sequence of str
        The splits that are used: "train" and those that heads are scored on.
    classes : sequence of str
    learned : collection of str
        The splits that heads are trained on; a class needs a photo in one of them.
    notes : Notes
        Receives findings.

    Raises
    ------
    DataError
    """
    present = {split: {row.label for row in rows if row.split == split} for split in {*splits, *learned}}
    for split in splits:
        if not present[split]:
            instead = ", or use --folds (data.folds) in place of it" if split == "validation" else ""
            raise DataError(f"{split} would be empty; {_REMEDY}{instead}{_blame(notes)}")
    trained = set().union(*(present[split] for split in learned))
    missing = [label for label in classes if label not in trained]
    if missing:
        raise DataError(f"train has no photo of {some(missing)} to learn from; {_REMEDY}{_blame(notes)}")
    for split in splits:
        missing = [label for label in classes if label not in present[split]]
        if missing and split not in learned:
            text = f"{split} has no photo of {some(missing)}, so they are not scored; {_REMEDY}."
            notes.findings.append(Finding("class_missing", (), text))


def _blame(notes: Notes) -> str:
    if not notes.unreadable:
        return ""
    path, reason = notes.unreadable[0]
    return f". Unreadable: {len(notes.unreadable)} in all, for example {path}: {reason}"
