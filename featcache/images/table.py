"""Finds the photos of a folder or manifest, and says of each its label, its split and its digest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from featcache.errors import DataError, did_you_mean
from featcache.images.division import divide, wanted_splits
from featcache.images.findings import Finding, Kind
from featcache.images.folders import find_classes, find_in_root
from featcache.images.manifest import read_manifest
from featcache.images.rows import SPLITS, FoundPhoto, ImageRow, ImageTable, Notes
from featcache.images.source import digest_of, digest_photo
from featcache.images.wording import is_not_unicode, printable, some, why_unreadable
from featcache.recipe import DataSettings

Progress = Callable[[int, int], None]


def load_table(settings: DataSettings, progress: Progress | None = None) -> ImageTable:
    """Find the photos that a recipe's ``[data]`` section means, hash them and divide them into splits.

    Parameters
    ----------
    settings : DataSettings
        Paths are relative to the working directory.
    progress : callable, optional
        Called as ``progress(done, total)`` while files are read.

    Returns
    -------
    ImageTable

    Raises
    ------
    DataError
        A folder or file is missing, a class is empty or unknown, there is one class only, a line of the
        manifest cannot be used, or a split would be empty.
    """
    notes = Notes()
    source, photos = _find(settings, notes)
    _check_labels(source, photos)
    rows = _read_digests(photos, notes, progress)
    _warn_of_copies(rows, notes)
    given = {photo.split for photo in photos}
    rows = divide(rows, given, settings)
    classes = sorted({photo.label for photo in photos})
    _check_splits(rows, wanted_splits(given, settings), classes, notes)
    return ImageTable(
        _in_order(rows, classes), tuple(classes), tuple(sorted(notes.unreadable)), tuple(notes.findings)
    )


def _find(settings: DataSettings, notes: Notes) -> tuple[str, list[FoundPhoto]]:
    """Return what to call the source in messages, and its photos."""
    if settings.manifest is not None:
        return f"data.manifest = {settings.manifest}", read_manifest(settings.manifest)
    if settings.root is not None:
        return f"data.root = {settings.root}", find_in_root(settings.root, notes)
    folders = {split: getattr(settings, split) for split in SPLITS}
    given = {split: folder for split, folder in folders.items() if folder is not None}
    photos = [
        photo
        for split, folder in given.items()
        for photo in find_classes(f"data.{split} = {folder}", folder, split, notes)
    ]
    return f"data.train = {settings.train}", photos


def _in_order(rows: Iterable[ImageRow], classes: Sequence[str]) -> tuple[ImageRow, ...]:
    number = {label: index for index, label in enumerate(classes)}
    return tuple(sorted(rows, key=lambda row: (SPLITS.index(row.split), number[row.label], row.path)))


# ---- the digests -----------------------------------------------------------------------------------------


def _read_digests(photos: Sequence[FoundPhoto], notes: Notes, progress: Progress | None) -> list[ImageRow]:
    rows = []
    for done, (photo, digest) in enumerate(zip(photos, _digests(photos), strict=True), start=1):
        if isinstance(digest, bytes):
            rows.append(ImageRow(photo.path, photo.label, photo.split, digest))
        else:
            notes.unreadable.append((printable(photo.path), digest))
        if progress is not None:
            progress(done, len(photos))
    return rows


def _digests(photos: Sequence[FoundPhoto], block: int = 32) -> Iterator[bytes | str]:
    """Give each photo's digest, or the reason why it has none, in order."""
    blocks = [photos[start : start + block] for start in range(0, len(photos), block)]
    with ThreadPoolExecutor() as pool:
        for digests in pool.map(lambda photos: [_digest_file(photo.path) for photo in photos], blocks):
            yield from digests


def _digest_file(path: str) -> bytes | str:
    if is_not_unicode(path):
        return "its name is not UTF-8; rename it"
    try:
        return digest_photo(path)
    except OSError as error:
        return why_unreadable(path, error)


# ---- the checks ------------------------------------------------------------------------------------------

_REMEDY = "add photos, change the shares in [data], or draw with another data.seed"


def _check_labels(source: str, photos: Sequence[FoundPhoto]) -> None:
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


def _warn_of_copies(rows: Sequence[ImageRow], notes: Notes) -> None:
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


def _check_splits(rows: list[ImageRow], splits: Sequence[str], classes: Sequence[str], notes: Notes) -> None:
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
