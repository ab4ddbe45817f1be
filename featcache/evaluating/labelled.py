"""Finds labelled photos to evaluate a model on, in class folders or a manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from featcache.errors import DataError, did_you_mean
from featcache.images.folders import list_folder
from featcache.images.labels import without_case
from featcache.images.manifest import read_manifest
from featcache.images.rows import FoundPhoto, Notes
from featcache.images.split_names import plain_split
from featcache.images.trees import find_classes
from featcache.images.wording import some


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos with labels that a model knows.

    Attributes
    ----------
    photos : dict of str to FoundPhoto
        By path. Labels are classes of the model, and weights above 0.
    two_labels : tuple of str
        Paths that are listed with two labels, and are not in `photos`.
    unknown : dict of str to int
        Labels that the model does not know, with their photos, which are not in `photos`.
    unreadable : tuple of (str, str)
        Path and reason of folders that could not be read.
    notes : tuple of str
        What was guessed and what was left out, as sentences.
    """

    photos: Mapping[str, FoundPhoto]
    two_labels: tuple[str, ...]
    unknown: Mapping[str, int]
    unreadable: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def find_labelled(source: Path, classes: Sequence[str], skip_unknown: bool = False) -> LabelledPhotos:
    """Find the photos of a folder or manifest.

    Parameters
    ----------
    source : Path
        A folder of class folders, or of ``train/``, ``validation/`` and ``test/`` with class folders, which
        are taken together; or a CSV manifest. Not every class needs photos.
    classes : sequence of str
        The model's classes. A label that differs from one of them only in case, blanks or the form of Unicode
        is that class.
    skip_unknown : bool, default False
        Leave out photos with other labels, instead of refusing them.

    Raises
    ------
    DataError
        There are no such photos, a line of the manifest cannot be used, or a label is none of the classes.
    """
    notes = Notes()
    found = _in_folder(source, classes, notes) if source.is_dir() else _in_manifest(source, notes)
    weightless = sum(not photo.weight for photo in found)
    found = [photo for photo in found if photo.weight]
    meant = _meanings({photo.label for photo in found}, classes)
    unknown = Counter(photo.label for photo in found if photo.label not in meant)
    if unknown and not (skip_unknown and meant):
        raise DataError(_unknown_labels(source, unknown, classes))
    by_path: dict[str, dict[str, FoundPhoto]] = defaultdict(dict)
    for photo in found:
        if photo.label in meant:
            by_path[photo.path].setdefault(meant[photo.label], photo)
    photos = {
        path: replace(photo, label=label)
        for path, labels in by_path.items()
        if len(labels) == 1
        for label, photo in labels.items()
    }
    return LabelledPhotos(
        photos,
        tuple(path for path, labels in by_path.items() if len(labels) > 1),
        unknown,
        tuple(notes.unreadable),
        (
            *(finding.text for finding in notes.findings),
            *_note_spellings(meant),
            *([f"{weightless:,} photos of weight 0 are left out."] if weightless else []),
        ),
    )


def _in_folder(folder: Path, classes: Sequence[str], notes: Notes) -> list[FoundPhoto]:
    """Return the photos of class folders; of a folder of splits, those of all splits."""
    known = set(map(without_case, classes))
    names, _ = list_folder(folder)
    splits = [name for name in names if plain_split(name) and without_case(name) not in known]
    parts = [folder / name for name in splits] or [folder]
    # as test: a class folder without files is no error there
    return [photo for part in parts for photo in find_classes(str(part), part, "test", notes, classes)]


def _in_manifest(manifest: Path, notes: Notes) -> list[FoundPhoto]:
    if not manifest.exists():
        raise DataError(
            f"{manifest} does not exist (seen from {Path.cwd()}); give a folder of class folders, or a CSV "
            "manifest with the columns path and label"
        )
    return read_manifest(manifest, notes, skip_missing=True)


def _meanings(labels: Collection[str], classes: Sequence[str]) -> dict[str, str]:
    """Return the class that each label means, without the labels that mean none."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[without_case(name)].append(name)
    meant = {}
    for label in sorted(labels):
        near = alike.get(without_case(label), [])
        if label in near or len(near) == 1:
            meant[label] = label if label in near else near[0]
    return meant


def _note_spellings(meant: Mapping[str, str]) -> Iterable[str]:
    other = [(label, name) for label, name in meant.items() if label != name]
    if other:
        label, name = other[0]
        yield (
            f"labels that the model's classes have in another spelling are taken as these ({len(other):,} in "
            f"all, for example {label!r} as {name!r})."
        )


def _unknown_labels(source: Path, unknown: Mapping[str, int], classes: Sequence[str]) -> str:
    label = min(unknown)
    photos, names = sum(unknown.values()), some(sorted(unknown))
    return (
        f"{source}: photos ({photos:,} in all) have labels that are no classes of the model: {names}; "
        f"its classes are {some(classes)}.{did_you_mean(label, classes)} Rename them, or leave these photos "
        "out with --skip-unknown (skip_unknown=True)"
    )
