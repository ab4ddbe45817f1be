"""Photos into a folder for each predicted class: hard links, or copies where the disk is another one.

Nothing is moved and nothing is replaced.
"""

from __future__ import annotations

import errno
import filecmp
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featcache.errors import DataError, StoreError
from featcache.files import check_folder_target, explain_os_error, open_regular, written_whole
from featcache.prediction import NONE_OF_THESE, Prediction

# What a folder's name must not have here, and "%" where it would read as one of the escapes.
_FORBIDDEN = r'\\:*?"<>|' if os.name == "nt" else ""
_UNSAFE = re.compile(rf"[\x00-\x1f\x7f/{_FORBIDDEN}\ud800-\udc7f\udd00-\udfff]|%(?=[0-9A-Fa-f]{{2}})")

# The disk is another one, it has no hard links, or the photo is another user's.
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


@dataclass
class Sorted:
    """What `sort_photos` did.

    Attributes
    ----------
    folder : Path
    linked, copied : int
        Photos that were placed.
    present : int
        Photos that were there already.
    rejected : int
        Photos that are none of the classes, among these.
    unlabelled : int
        Photos that could not be decoded.
    failed : list of (path, reason)
        Photos that could not be placed.
    """

    folder: Path
    linked: int = 0
    copied: int = 0
    present: int = 0
    rejected: int = 0
    unlabelled: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)

    def raise_if_any_failed(self) -> None:
        """Raise a StoreError where photos could not be placed: how many, and why the first was not."""
        if self.failed:
            path, reason = self.failed[0]
            raise StoreError(
                f"{len(self.failed):,} photos could not be placed; the first is {path}: {reason}"
            )

    @property
    def sentence(self) -> str:
        """The counts for a person."""
        counts = {
            "linked": self.linked,
            "copied": self.copied,
            "already there": self.present,
            "of these none of the classes": self.rejected,
            "without a class and not placed": self.unlabelled,
            "failed": len(self.failed),
        }
        return f"Sorted into {self.folder}: " + ", ".join(f"{n:,} {what}" for what, n in counts.items() if n)


def check_sort_folder(folder: Path, photos: Iterable[Path]) -> None:
    """Make sure, before any work, that photos can be sorted into a folder.

    Raises
    ------
    DataError
        The folder is one of the photos' folders or inside of one: the next run would predict its links, too.
    StoreError
        It cannot be written.
    """
    target = Path(os.path.realpath(folder))
    for given in photos:
        if given.is_dir() and target.is_relative_to(os.path.realpath(given)):
            raise DataError(
                f"{folder} is in {given}, the folder of the photos: the next run would take what is sorted "
                "for more photos; choose a folder outside of it"
            )
    check_folder_target(folder)


def sort_photos(folder: Path, predictions: Sequence[Prediction], classes: Sequence[str] = ()) -> Sorted:
    """Place each photo in ``folder/CLASS/NAME`` by its predicted class, as a hard link or a copy.

    Photos that were rejected go to ``folder/none_of_these/NAME``, with further underscores in front where a
    class has this name.
    A file that has the name already is kept; the photo then gets a number, ``NAME-2``, unless that file has
    the same content. A photo that cannot be placed does not stop the others.

    Parameters
    ----------
    folder : Path
    predictions : sequence of Prediction
        Of files.
    classes : sequence of str, optional
        All classes of the model.

    Returns
    -------
    Sorted
    """
    done = Sorted(folder)
    none_of_these = _folder_of_rejected([*classes, *(one.label for one in predictions if one.label)])
    for one in predictions:
        if one.label is None and not one.rejected:
            done.unlabelled += 1
            continue
        name = none_of_these if one.label is None else folder_name(one.label)
        try:
            _place(Path(one.path), folder / name, done)
            done.rejected += one.label is None
        except StoreError as error:
            done.failed.append((one.path, str(error)))
        except OSError as error:
            done.failed.append((one.path, explain_os_error(error, Path(one.path))))
    return done


def folder_name(label: str) -> str:
    """Return the name of a class's folder: the class with ``%2F`` for "/" and so on.

    Different classes have different folders. "." and ".." are escaped, since these are other folders.
    """
    name = _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", label)
    return name if name.strip(".") else name.replace(".", "%2E") or "%"


def _folder_of_rejected(labels: Sequence[str]) -> str:
    # folders whose names differ in case only are one folder on some systems
    taken = {folder_name(label).casefold() for label in labels}
    name = NONE_OF_THESE.replace(" ", "_")
    while name in taken:
        name = f"_{name}"
    return name


def _place(photo: Path, folder: Path, done: Sorted) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    original = os.path.realpath(photo)  # a hard link of a symbolic link would be one, too
    for target in _names(folder, photo.name):
        if os.path.lexists(target):
            if _has_content_of(target, original):
                done.present += 1
                return
            continue
        try:
            os.link(original, target)
            done.linked += 1
            return
        except FileExistsError:
            continue  # another process was faster
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
        with open_regular(original) as source, written_whole(target) as aside, aside.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        done.copied += 1
        return


def _names(folder: Path, name: str) -> Iterator[Path]:
    """Yield NAME.jpg, NAME-2.jpg, NAME-3.jpg and so on."""
    yield folder / name
    stem, suffix, number = Path(name).stem, Path(name).suffix, 1
    while True:
        number += 1
        yield folder / f"{stem}-{number}{suffix}"


def _has_content_of(target: Path, original: str) -> bool:
    return target.is_file() and (target.samefile(original) or filecmp.cmp(target, original, shallow=False))
