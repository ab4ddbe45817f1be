"""Finds photos in a tree of folders: one sub-folder per class, perhaps divided into splits above that."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featcache.errors import DataError, did_you_mean
from featcache.images.findings import Finding
from featcache.images.folders import PHOTO_SUFFIXES, Siblings, list_folder, may_be_photo, walk
from featcache.images.labels import without_case
from featcache.images.rows import SPLITS, FoundPhoto, Notes
from featcache.images.split_names import (
    DOCUMENTED_NAMES,
    SplitName,
    named_as_splits,
    plain_split,
    read_split_name,
)
from featcache.images.wording import is_not_unicode, printable, some

_AS_SPLITS = (
    "arrange them as train/CLASS and validation/CLASS in one folder, give data.train, data.validation and "
    "data.test, or list the photos in a manifest with a column split"
)


def find_in_root(root: Path, notes: Notes, by_folder: bool = False) -> list[FoundPhoto]:
    """Return the photos of a folder that holds class folders, or ``train/`` and its like with them inside.

    With `by_folder` the folders in class folders are groups, see `find_classes`.
    """
    source = f"data.root = {root}"
    list_folder(root, source)
    folder = _innermost(root, stop=lambda name: plain_split(name) is not None)
    _note_descent(root, folder, notes)
    splits = _split_folders(source, folder, notes)
    if not splits:
        return find_classes(source, folder, "", notes, by_folder=by_folder)
    photos: list[FoundPhoto] = []
    for split in SPLITS:
        if split in splits:
            known = {photo.label for photo in photos}
            photos += find_classes(str(splits[split]), splits[split], split, notes, known, by_folder)
    return photos


def find_classes(
    source: str,
    folder: Path,
    split: str,
    notes: Notes,
    known: Collection[str] = (),
    by_folder: bool = False,
) -> list[FoundPhoto]:
    """Return the photos of a folder that holds one sub-folder per class.

    Parameters
    ----------
    source : str
        What to call the folder in messages.
    folder : Path
        A single folder in it without photos of its own is taken in its place, which is a finding.
    split : str
        The split of the photos; empty where they are not divided yet.
    notes : Notes
    known : collection of str
        Labels of train: a folder of that name is a class, also where it is the only one.
    by_folder : bool, default False
        A photo's group is the folder in the class folder that it lies in, by its name.

    Raises
    ------
    DataError
        There is no class folder, or the folders are more likely splits than classes.
    """
    list_folder(folder, source)
    labels = set(map(without_case, known))
    inner = _innermost(folder, stop=lambda name: without_case(name) in labels)
    _note_descent(folder, inner, notes)
    names, files = list_folder(inner)
    if not names:
        raise DataError(_no_classes(source, inner, files))
    _note_photos_beside(inner, files, notes)
    _refuse_splits(source, names)
    classes = _walk_classes(inner, names, notes)
    _leave_out_nested_copy(source, inner, classes, notes)
    _check_empty(source, inner, classes, split, notes)
    if by_folder:
        _refuse_inner_splits(source, inner, classes)
        return [
            FoundPhoto(path, name, split, _inner_folder(path, str(inner / name)))
            for name, one in classes.items()
            for path in one.paths
        ]
    _check_nesting(source, inner, classes, notes)
    return [FoundPhoto(path, name, split) for name, one in classes.items() for path in one.paths]


# ---- levels ------------------------------------------------------------------------------------------------


def _innermost(folder: Path, stop: Callable[[str], bool] = lambda name: False) -> Path:
    """Go down through folders that hold one folder of folders and no photos, until `stop` of its name."""
    seen = set()
    while (inner := _single_folder(folder)) is not None and not stop(inner.name):
        real = os.path.realpath(inner)
        if real in seen:  # a link to a folder above
            break
        seen.add(real)
        folder = inner
    return folder


def _single_folder(folder: Path) -> Path | None:
    """Return the folder of folders that is all there is in a folder."""
    names, files = list_folder(folder)
    if len(names) != 1 or any(map(may_be_photo, files)):
        return None
    deeper, photos = list_folder(folder / names[0])
    return None if not deeper or any(map(may_be_photo, photos)) else folder / names[0]


def _note_descent(given: Path, folder: Path, notes: Notes) -> None:
    if folder != given:
        text = f"{given} holds nothing but {folder.relative_to(given)}, so {folder} is used in its place."
        notes.findings.append(Finding("inner_folder", (str(folder),), text))


# ---- splits ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidate:
    """A folder with the name of a split, and the names of the folders in it that may be classes."""

    path: Path
    name: SplitName
    classes: frozenset[str]

    def is_like(self, other: _Candidate) -> bool:
        """Whether most classes of one are in the other, too."""
        shared = len(self.classes & other.classes)
        return shared > 0 and 2 * shared >= min(len(self.classes), len(other.classes))


def _split_folders(source: str, folder: Path, notes: Notes) -> dict[str, Path]:
    """Return the folders of a tree that is already divided, by split; none where it is not."""
    names, _ = list_folder(folder)
    candidates = _candidates(folder, names)
    train = _train_of(source, candidates, names)
    if train is None:
        return {}
    others = [one for one in candidates if one.name.split != "train" and _belongs(one, train)]
    beside = [name for name in names if folder / name not in {train.path, *(one.path for one in others)}]
    if not others and beside and (not train.classes or _holds_alike(folder, beside, train)):
        return {}  # a class, of railway trains
    chosen = {"train": train.path}
    for split in SPLITS[1:]:
        one = _only(source, [one for one in others if one.name.split == split])
        if one is not None:
            chosen[split] = one.path
    _note_splits(folder, chosen, notes)
    _note_unused([folder / name for name in names if folder / name not in chosen.values()], notes)
    return chosen


def _only(source: str, folders: Sequence[_Candidate]) -> _Candidate | None:
    """Return the folder of one split; a test folder without class folders has no labels and is not used."""
    usable = [one for one in folders if one.classes or one.name.split != "test"]
    if len(usable) > 1:
        raise DataError(_both(source, usable[0].path.name, usable[1].path.name))
    return usable[0] if usable else None


def _candidates(folder: Path, names: Sequence[str]) -> list[_Candidate]:
    read = {name: found for name in names if (found := read_split_name(name)) is not None}
    return [
        _Candidate(folder / name, found, frozenset(list_folder(_innermost(folder / name))[0]))
        for name, found in read.items()
    ]


def _train_of(source: str, candidates: Sequence[_Candidate], names: Sequence[str]) -> _Candidate | None:
    """Return the folder of train: by its name alone, or by its name and classes that a partner has, too."""
    plain = [one for one in candidates if not one.name.rest]
    trains = [one for one in plain if one.name.split == "train"]
    trains = trains or [
        one
        for one in candidates
        if one.name.split == "train"
        and len(one.classes) > 1
        and any(_belongs(other, one) for other in candidates if other.name.split != "train")
    ]
    if len(trains) > 1:
        raise DataError(_both(source, trains[0].path.name, trains[1].path.name))
    splits = {one.name.split for one in plain}
    if not trains and len(plain) == len(names) and (len(splits) > 1 or any(one.classes for one in plain)):
        raise DataError(
            f"{source} holds {some([one.path.name for one in plain])} but no folder train; add it"
        )
    return trains[0] if trains else None


def _belongs(other: _Candidate, train: _Candidate) -> bool:
    """Whether a folder is a split beside train: by its name alone, or by its name and its classes."""
    if not other.name.rest:
        return not train.name.rest or other.is_like(train)
    return other.is_like(train) and (not train.name.rest or other.name.rest == train.name.rest)


def _holds_alike(folder: Path, names: Sequence[str], train: _Candidate) -> bool:
    """Whether one of the folders holds the same folders as train, so that train is one class among them."""
    held = (frozenset(list_folder(folder / name)[0]) for name in names)
    return any(len(train.classes & inside) * 2 >= len(train.classes) for inside in held)


def _both(source: str, one: str, other: str) -> str:
    return f"{source} holds both {one} and {other}; keep one of them, or {_AS_SPLITS}"


def _note_splits(folder: Path, chosen: Mapping[str, Path], notes: Notes) -> None:
    """Say how folders were read as splits, unless their names are the documented ones."""
    if all(path.name.lower() in DOCUMENTED_NAMES for path in chosen.values()):
        return
    read = ", ".join(f"{path.name} as {split}" for split, path in chosen.items())
    text = f"folders in {folder} are read as splits: {read}; rename them if that is wrong."
    notes.findings.append(Finding("split_folders", tuple(map(str, chosen.values())), text))


def _note_unused(folders: Sequence[Path], notes: Notes) -> None:
    for folder in folders:
        if plain_split(folder.name):
            why = "it holds no class folder, so its photos have no labels."
        else:
            why = "beside train only validation and test are splits."
            why += did_you_mean(folder.name, ("validation", "test"))
        notes.findings.append(Finding("unused_folder", (str(folder),), f"{folder} is not used: {why}"))


# ---- classes -----------------------------------------------------------------------------------------------


@dataclass
class _Class:
    """What lies below a class folder: paths of files, and the names of its folders that hold any."""

    paths: list[str]
    has_photos: bool = False
    folders: set[str] = field(default_factory=set)


def _walk_classes(folder: Path, names: Sequence[str], notes: Notes) -> dict[str, _Class]:
    siblings = Siblings.of(str(folder / name) for name in names)
    classes = {}
    for name in names:
        if is_not_unicode(name):
            raise DataError(
                f"the class folder {printable(str(folder / name))} has a name that is not UTF-8; rename it"
            )
        classes[name] = _describe(str(folder / name), list(walk(str(folder / name), notes, siblings)))
    return classes


def _describe(folder: str, paths: list[str]) -> _Class:
    found = _Class(paths)
    for path in paths:
        first, nested, _ = _below(path, folder)
        if nested:
            found.folders.add(first)
        elif not found.has_photos:
            found.has_photos = may_be_photo(first)
    return found


def _below(path: str, folder: str) -> tuple[str, str, str]:
    """Return the name of what holds a file in a folder, the separator if it is a folder, and the rest."""
    return path[len(folder) + 1 :].partition(os.sep)


def _inner_folder(path: str, folder: str) -> str:
    first, nested, _ = _below(path, folder)
    return sys.intern(first) if nested else ""


def _check_empty(source: str, folder: Path, classes: Mapping[str, _Class], split: str, notes: Notes) -> None:
    """Refuse a class folder without files, or note it where photos are only scored."""
    empty = [str(folder / name) for name, one in classes.items() if not one.paths]
    if not empty:
        return
    blocked = dict(notes.unreadable).get(empty[0])
    why = f": {blocked}" if blocked else ""
    if split in ("", "train"):
        more = f" (as {len(empty) - 1:,} more)" if len(empty) > 1 else ""
        raise DataError(
            f"the class folder {empty[0]} holds no file{more}{why}; put photos into it or remove it"
        )
    if len(empty) == len(classes):
        raise DataError(
            f"{source}: none of its {len(classes):,} class folders holds a file; put photos into them"
        )
    text = f"class folders in {split} hold no file ({len(empty):,} in all, for example {empty[0]}{why})."
    notes.findings.append(Finding("empty_class", tuple(empty), text))


def _refuse_splits(source: str, names: Sequence[str]) -> None:
    """Refuse class folders that are named as splits: a model would learn to tell train from test."""
    splits = named_as_splits(names)
    if splits:
        raise DataError(
            f"{source} holds {some(splits)} where class folders are expected, and these are names of splits; "
            f"{_AS_SPLITS}"
        )


def _leave_out_nested_copy(source: str, folder: Path, classes: dict[str, _Class], notes: Notes) -> None:
    """Look for a class folder that holds folders of the names beside it: a copy of them, or a mistake."""
    for name, one in list(classes.items()):
        same = sorted(one.folders & classes.keys())
        if len(same) < 2 or one.has_photos or 2 * len(same) < len(one.folders):
            continue
        if name != folder.resolve().name:
            raise DataError(
                f"{source}: {folder / name} lies among the class folders and holds folders of their names, "
                f"{some(same)}; move its photos into the class folders, or it to another place"
            )
        del classes[name]
        text = (
            f"{folder / name} is not used: it has the name of the folder around it and holds folders of the "
            f"same names, {some(same)}. It seems to be a copy of them."
        )
        notes.findings.append(Finding("unused_folder", (str(folder / name),), text))


def _refuse_inner_splits(source: str, folder: Path, classes: Mapping[str, _Class]) -> None:
    for name, one in classes.items():
        if not one.has_photos and (splits := named_as_splits(sorted(one.folders))):
            raise DataError(
                f"{source}: class folder {folder / name} holds the split folders {some(splits)}; {_AS_SPLITS}"
            )


def _check_nesting(source: str, folder: Path, classes: Mapping[str, _Class], notes: Notes) -> None:
    """Refuse class folders that may be splits, and note those whose photos lie in folders."""
    _refuse_inner_splits(source, folder, classes)
    nested = {name: one.folders for name, one in classes.items() if one.folders}
    without = [name for name in nested if not classes[name].has_photos]
    alike = _alike(nested)
    common = sorted({one for name in alike for one in nested[name]})
    is_alike = len(alike) > 1 and len(common) > 1
    if is_alike and not all(classes[name].has_photos for name in alike):
        raise DataError(
            f"{source}: the folders {some(alike, 3)} hold the same folders {some(common, 3)} and no photos "
            f"of their own, so it is unclear which are the classes. If {some(common, 2)} are, {_AS_SPLITS}; "
            f"if {some(alike, 2)} are, move the photos up into them or list the photos in a manifest"
        )
    if is_alike or (nested and len(without) == len(classes)):
        name = alike[0] if is_alike else without[0]
        what = "the same folders" if is_alike else "no photos themselves, only folders"
        text = (
            f"the class folders in {folder} hold {what}, for example {name}{os.sep}{min(nested[name])}: all "
            "photos below a class folder are of its class."
        )
        notes.findings.append(Finding("nested_classes", tuple(str(folder / one) for one in nested), text))


def _alike(nested: Mapping[str, Collection[str]]) -> list[str]:
    """Return the folders of which at least half of the inner folders have a name that is in another, too."""
    times = Counter(name for inside in nested.values() for name in inside)
    return [
        name for name, inside in nested.items() if 2 * sum(times[one] > 1 for one in inside) >= len(inside)
    ]


def _note_photos_beside(folder: Path, files: Sequence[str], notes: Notes) -> None:
    beside = [name for name in files if os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES]  # noqa: PTH122
    if beside:
        text = (
            f"photos lie in {folder} beside its class folders and are not used ({len(beside):,} in all, for "
            f"example {beside[0]}); move them into a class folder."
        )
        notes.findings.append(Finding("beside_classes", tuple(str(folder / name) for name in beside), text))


def _no_classes(source: str, folder: Path, files: Sequence[str]) -> str:
    arrange = (
        f"put the photos into one sub-folder per class, for example {folder / 'cat'} and {folder / 'dog'}"
    )
    if not files:
        return f"{source} is empty; {arrange}"
    return (
        f"{source} holds no class folder, only files ({len(files):,}); {arrange}, or list them in a manifest"
    )
