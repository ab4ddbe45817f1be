"""Lists folders and the photos below them; links are followed, but no photo is listed twice."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import DataError
from featcache.images.rows import Notes
from featcache.images.wording import printable, why_unreadable

# Left behind by Windows, macOS archives, network storage and Python; hidden files are ignored as well.
IGNORED_NAMES = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "icon\r", "__pycache__"}
    | {"@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
)

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif"}
    | {".heic", ".heif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"}
)

_TEXTS_WITHOUT_SUFFIX = ("readme", "license", "licence", "makefile", "authors", "citation")

Identity = tuple[int, int]
"""Device and inode of a file or folder: the same for every path that leads to it."""


def photo_files(folder: Path) -> list[str]:
    """Return the paths of all files below a folder that may be photos, sorted.

    Links are followed, but no folder is listed twice; hidden files and the leftovers of systems are left out.
    The format is not looked at.

    Raises
    ------
    DataError
        The folder, or one below it, cannot be read.
    """
    notes = Notes()
    files = sorted([*walk(str(folder), notes), *filter(is_candidate, notes.repeated_links)])
    for path, reason in notes.unreadable:
        raise DataError(f"the folder {path} cannot be read: {reason}; give a folder that you may read")
    return files


def is_candidate(path: str) -> bool:
    """Whether it is a file or a link to nothing; a pipe or a device would block whoever opens it."""
    # os.path and not Path: it says no, where Path raises, when a folder on the way may not be entered
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))  # noqa: PTH110, PTH113, PTH114


def may_be_photo(name: str) -> bool:
    """Whether a file's name is one that photos have: a suffix of a photo, or none."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    return suffix in PHOTO_SUFFIXES or (not suffix and not name.lower().startswith(_TEXTS_WITHOUT_SUFFIX))


def list_folder(folder: Path, source: str | None = None) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder, sorted, without the ignored ones.

    Parameters
    ----------
    folder : Path
    source : str, optional
        What to call it in messages; default is its path.

    Raises
    ------
    DataError
        It does not exist, is a file or cannot be read.
    """
    source = source or str(folder)
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _is_ignored(entry.name):
                    (folders if _is_folder(entry) else files).append(entry.name)
    except FileNotFoundError:
        raise DataError(
            f"{source} does not exist (seen from {Path.cwd()}); give a folder of class folders"
        ) from None
    except NotADirectoryError:
        raise DataError(
            f"{source} is a file; give a folder of class folders, or a CSV file as data.manifest"
        ) from None
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}") from None
    return sorted(folders), sorted(files)


@dataclass(frozen=True)
class Siblings:
    """Folders that are walked one after another, so that a link in one of them may lead to another.

    Attributes
    ----------
    folders : frozenset of str
        Their real paths.
    above : frozenset of str
        The real paths of all folders above them.
    """

    folders: frozenset[str]
    above: frozenset[str]

    @classmethod
    def of(cls, folders: Iterable[str]) -> Siblings:
        """Resolve the paths of the folders."""
        real = [Path(os.path.realpath(folder)) for folder in folders]
        return cls(frozenset(map(str, real)), frozenset(str(above) for one in real for above in one.parents))

    def own(self, link: str, folder: str) -> bool:
        """Whether a link to a folder leads to nothing but photos of `folder`."""
        target = Path(os.path.realpath(link))
        others = self.folders - {os.path.realpath(folder)}
        return str(target) not in self.above and not any(
            str(one) in others for one in (target, *target.parents)
        )


def walk(folder: str, notes: Notes, siblings: Siblings | None = None) -> Iterator[str]:
    """Go through a folder and all below it, following links.

    Parameters
    ----------
    folder : str
    notes : Notes
        Receives folders that cannot be read, and in ``repeated_links`` the links that are not followed: to a
        folder above `folder`, to one of its siblings or below it, or to what is listed anyway.
    siblings : Siblings, optional
        The folder itself, and those whose photos belong to something else: the other class folders.

    Yields
    ------
    str
        Paths of files; pipes and devices too: reading one fails at once, and it is reported as unreadable.
    """
    siblings = siblings or Siblings.of([folder])
    waiting, linked = [folder], list[str]()
    seen: set[Identity] = set()
    files: list[str] = []
    links: list[tuple[str, Identity]] = []
    while waiting or linked:
        # real folders come first: of a folder and a link to it, the link is left out
        here, is_link = (waiting.pop(), False) if waiting else (linked.pop(), True)
        try:
            identity = _identity(os.stat(here))  # noqa: PTH116
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            notes.unreadable.append((printable(here), why_unreadable(here, error)))
            continue
        if identity in seen or (is_link and not siblings.own(here, folder)):
            notes.repeated_links.append(here)
            continue
        seen.add(identity)
        for entry in entries:
            if _is_ignored(entry.name):
                continue
            if _is_folder(entry):
                (linked if entry.is_symlink() else waiting).append(entry.path)
            elif entry.is_symlink() and (target := _target(entry)) is not None:
                links.append((entry.path, target))
            else:
                files.append(entry.path)
    yield from files
    yield from _first_of_each(links, files, notes)


def _first_of_each(links: list[tuple[str, Identity]], files: list[str], notes: Notes) -> Iterator[str]:
    """Yield the links to files that are neither listed themselves nor the target of an earlier link."""
    if not links:
        return
    listed = set(_identities(files))
    for path, target in links:
        if target in listed:
            notes.repeated_links.append(path)
        else:
            listed.add(target)
            yield path


def _identities(files: Iterable[str]) -> Iterator[Identity]:
    for path in files:
        with contextlib.suppress(OSError):  # removed meanwhile, which reading it will say
            yield _identity(os.lstat(path))


def _identity(facts: os.stat_result) -> Identity:
    return facts.st_dev, facts.st_ino


def _target(link: os.DirEntry[str]) -> Identity | None:
    """Return what a link leads to; None where it leads to no regular file."""
    try:
        facts = link.stat()
    except OSError:
        return None
    return _identity(facts) if stat.S_ISREG(facts.st_mode) else None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))  # noqa: PTH112


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED_NAMES
