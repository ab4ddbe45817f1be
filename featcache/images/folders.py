"""Finds photos in folders: one sub-folder per class, perhaps divided into splits above that."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from featcache.errors import DataError, did_you_mean
from featcache.images.findings import Finding
from featcache.images.rows import SPLIT_WORDS, SPLITS, FoundPhoto, Notes
from featcache.images.wording import is_not_unicode, printable, some, why_unreadable

# Left behind by Windows and by macOS archives; hidden files are ignored as well.
IGNORED_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})

PHOTO_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
        *(".avif", ".heic", ".heif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"),
    }
)


def photo_files(folder: Path) -> list[str]:
    """Return the paths of all files below a folder that may be photos, sorted.

    Links are followed; hidden files and the leftovers of systems are left out. The format is not looked at.

    Raises
    ------
    DataError
        The folder, or one below it, cannot be read.
    """
    notes = Notes()
    files = sorted(_walk(str(folder), notes))
    for path, reason in notes.unreadable:
        raise DataError(f"the folder {path} cannot be read: {reason}; give a folder that you may read")
    return files


def find_in_root(root: Path, notes: Notes) -> list[FoundPhoto]:
    """Return the photos of a folder that holds class folders, or ``train/`` and its like with them inside."""
    source = f"data.root = {root}"
    folders = _split_folders(source, root, notes)
    if "train" not in folders:
        return find_classes(source, root, "", notes)
    return [
        photo
        for split in SPLITS
        if split in folders
        for photo in find_classes(str(folders[split]), folders[split], split, notes)
    ]


def find_classes(source: str, folder: Path, split: str, notes: Notes) -> list[FoundPhoto]:
    """Return the photos of a folder that holds one sub-folder per class."""
    folders, files = _list(source, folder)
    if not folders:
        raise DataError(_no_classes(source, folder, files))
    beside = [file.name for file in files if file.suffix.lower() in PHOTO_SUFFIXES]
    if beside:
        text = (
            f"photos lie in {folder} beside its class folders and are not used ({len(beside)} in all, for "
            f"example {beside[0]}); move them into a class folder."
        )
        paths = tuple(str(folder / name) for name in beside)
        notes.findings.append(Finding("beside_classes", paths, text))
    return [photo for one in folders for photo in _find_in_class(one, split, notes)]


def is_candidate(path: str) -> bool:
    """Whether it is a file or a link to nothing; a pipe or a device would block whoever opens it."""
    # os.path and not Path: it says no, where Path raises, when a folder on the way may not be entered
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))  # noqa: PTH110, PTH113, PTH114


def _split_folders(source: str, root: Path, notes: Notes) -> dict[str, Path]:
    """Return the folders of a root that is already divided, by split; none where it is not."""
    folders, _ = _list(source, root)
    found: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_WORDS.get(folder.name.lower())
        if split in found:
            raise DataError(f"{source} holds both {found[split].name} and {folder.name}; keep one of them")
        if split is not None:
            found[split] = folder
    others = [folder.name for folder in folders if folder not in found.values()]
    if "train" not in found:
        if found and not others:
            raise DataError(
                f"{source} holds {some([f.name for f in found.values()])} but no folder train; add it"
            )
        return {}
    if len(found) == 1 and others and not _list(str(found["train"]), found["train"])[0]:
        return {}  # "train" with nothing but files in it, beside other folders: a class, of railway trains
    for name in others:
        text = f"{root / name} is not used: beside train only validation and test are splits."
        text += did_you_mean(name, ("validation", "test"))
        notes.findings.append(Finding("unused_folder", (str(root / name),), text))
    return found


def _find_in_class(folder: Path, split: str, notes: Notes) -> list[FoundPhoto]:
    if is_not_unicode(folder.name):
        raise DataError(f"the class folder {printable(str(folder))} has a name that is not UTF-8; rename it")
    blocked = len(notes.unreadable)
    photos = [FoundPhoto(path, folder.name, split) for path in _walk(str(folder), notes)]
    if not photos:
        why = f": {notes.unreadable[-1][1]}" if len(notes.unreadable) > blocked else ""
        raise DataError(f"the class folder {folder} holds no file{why}; put photos into it or remove it")
    return photos


def _walk(folder: str, notes: Notes) -> Iterator[str]:
    """Go through a folder and all below it, following links; each real folder is visited once."""
    waiting, seen = [folder], set()
    while waiting:
        here = waiting.pop()
        try:
            identity = Path(here).stat()
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            notes.unreadable.append((printable(here), why_unreadable(here, error)))
            continue
        if (identity.st_dev, identity.st_ino) in seen:
            continue
        seen.add((identity.st_dev, identity.st_ino))
        entries = [entry for entry in entries if not _is_ignored(entry.name)]
        waiting.extend(entry.path for entry in reversed(entries) if _is_folder(entry))
        # pipes and devices too: reading one fails at once, and it is then reported as unreadable
        yield from (entry.path for entry in entries if not _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))  # noqa: PTH112


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def _list(source: str, folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the files in a folder, sorted, without the ignored ones."""
    try:
        if not folder.exists():
            raise DataError(
                f"{source} does not exist (seen from {Path.cwd()}); give a folder of class folders"
            )
        if not folder.is_dir():
            raise DataError(
                f"{source} is a file; give a folder of class folders, or a CSV file as data.manifest"
            )
        entries = sorted(entry for entry in folder.iterdir() if not _is_ignored(entry.name))
        return [e for e in entries if e.is_dir()], [e for e in entries if not e.is_dir()]
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}") from None


def _no_classes(source: str, folder: Path, files: Sequence[Path]) -> str:
    arrange = (
        f"put the photos into one sub-folder per class, for example {folder / 'cat'} and {folder / 'dog'}"
    )
    if not files:
        return f"{source} is empty; {arrange}"
    return f"{source} holds no class folder, only files ({len(files)}); {arrange}, or list them in a manifest"
