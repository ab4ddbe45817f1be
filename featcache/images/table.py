"""Finds the photos of a folder or manifest, and says of each its label, its split and its digest."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from featcache.errors import ImageError
from featcache.images.checks import check_labels, check_splits, warn_of_copies, without_weight_zero
from featcache.images.division import divide, drawn_splits, keep_in_train, learned_splits, used_splits
from featcache.images.findings import Finding
from featcache.images.groups import check_groups, grouped_by_pattern, with_joined_groups
from featcache.images.index import DigestIndex, Entry
from featcache.images.labels import note_joined_labels, unify_labels
from featcache.images.manifest import read_manifest
from featcache.images.rows import SPLITS, FoundPhoto, ImageRow, ImageTable, Notes
from featcache.images.source import check_name, digest_photo
from featcache.images.trees import find_classes, find_in_root
from featcache.images.wording import printable, some
from featcache.recipe import DataSettings

Progress = Callable[[int, int], None]


def find_photos(settings: DataSettings, notes: Notes) -> list[FoundPhoto]:
    """Find the photos that a recipe's ``[data]`` section means, before any of them is read.

    Parameters
    ----------
    settings : DataSettings
    notes : Notes
        Receives what cannot be read and what should be looked at.

    Raises
    ------
    DataError
        A folder or file is missing, a class is empty or unknown, there is one class only, a line of the
        manifest cannot be used, the groups leave nothing to divide, or the photos of a class or of a split
        have weight 0. With ``data.strict`` also where a group is in two splits.
    """
    photos = _find(settings, notes)
    if notes.repeated_links:
        first = notes.repeated_links[0]
        text = (
            f"links that lead to photos of another folder or of the same are not followed "
            f"({len(notes.repeated_links):,} in all, for example {printable(first)}): no photo counts twice."
        )
        notes.findings.append(Finding("repeated_links", tuple(map(printable, notes.repeated_links)), text))
    learned = ("", *learned_splits(settings))
    photos = unify_labels(photos, learned, notes)
    check_labels(_source(settings), photos, learned)
    note_joined_labels({photo.label for photo in photos}, notes)
    photos = without_weight_zero(_source(settings), photos, learned, notes)
    check_groups(_source(settings), photos, settings, notes)
    return photos


def assemble(
    found: Sequence[FoundPhoto], digests: Mapping[str, bytes | str], settings: DataSettings, notes: Notes
) -> ImageTable:
    """Divide the photos that were found into splits; a pure function.

    Parameters
    ----------
    found : sequence of FoundPhoto
    digests : mapping of str to bytes or str
        By path: the photo's digest, 32 bytes, or the reason why it could not be read.
    settings : DataSettings
    notes : Notes
        From `find_photos`; receives the photos that could not be read, and further findings.

    Raises
    ------
    DataError
        A split would be empty, or a class would have no photo in train.
    """
    rows = []
    for photo in found:
        digest = digests[photo.path]
        if isinstance(digest, bytes):
            rows.append(ImageRow(photo.path, photo.label, photo.split, digest, photo.group, photo.weight))
        else:
            notes.unreadable.append((printable(photo.path), digest))
    warn_of_copies(rows, notes)
    rows = with_joined_groups(rows, notes)
    given = {photo.split for photo in found}
    rows = divide(rows, given, settings)
    classes = sorted({photo.label for photo in found})
    check_splits(rows, used_splits(given, settings), classes, learned_splits(settings), notes)
    return ImageTable(
        _in_order(rows, classes),
        tuple(classes),
        tuple(sorted(notes.unreadable)),
        tuple(notes.findings),
        drawn_splits(given, settings),
    )


def without_broken(table: ImageTable, broken: Collection[bytes], seed: int) -> ImageTable:
    """Give classes whose photos in train are all broken another photo there, where a draw may decide.

    Parameters
    ----------
    table : ImageTable
    broken : collection of bytes
        Digests of photos that could not be decoded. Their rows stay where they are.
    seed : int
        ``data.seed``.

    Returns
    -------
    ImageTable
        The same object where nothing moves, else with a finding of what moved.
    """
    before = list(table.rows)
    rows = keep_in_train(before, table.drawn, seed, broken)
    moved = [new for old, new in zip(before, rows, strict=True) if new is not old]
    if not moved:
        return table
    text = (
        f"the photos of {some(sorted({row.label for row in moved}))} that were drawn for train are broken; "
        f"{len(moved):,} drawn for other splits take their place, for example {moved[0].path}."
    )
    finding = Finding("broken_in_train", tuple(row.path for row in moved), text)
    return replace(table, rows=_in_order(rows, table.classes), findings=(*table.findings, finding))


def _find(settings: DataSettings, notes: Notes) -> list[FoundPhoto]:
    if settings.group is None or settings.group == "folder":
        return _listed(settings, notes)
    return grouped_by_pattern(_source(settings), _listed(settings, notes), settings.group)


def _listed(settings: DataSettings, notes: Notes) -> list[FoundPhoto]:
    by_folder = settings.group == "folder"
    if settings.manifest is not None:
        return read_manifest(settings.manifest, notes, settings.skip_missing)
    if settings.root is not None:
        return find_in_root(settings.root, notes, by_folder)
    photos: list[FoundPhoto] = []
    for split in SPLITS:
        folder = getattr(settings, split)
        if folder is not None:
            known = {photo.label for photo in photos}
            photos += find_classes(f"data.{split} = {folder}", folder, split, notes, known, by_folder)
    return photos


def _source(settings: DataSettings) -> str:
    """Return what to call the source in messages."""
    key = next(key for key in ("manifest", "root", "train") if getattr(settings, key) is not None)
    return f"data.{key} = {getattr(settings, key)}"


def _in_order(rows: Iterable[ImageRow], classes: Sequence[str]) -> tuple[ImageRow, ...]:
    number = {label: index for index, label in enumerate(classes)}
    return tuple(sorted(rows, key=lambda row: (SPLITS.index(row.split), number[row.label], row.path)))


# ---- the digests -----------------------------------------------------------------------------------------

Digests = dict[str, bytes | str]
"""By path: a photo's digest, or the reason why it could not be read."""

_BLOCK = 64


def read_digests(paths: Sequence[str], index: DigestIndex, progress: Progress | None = None) -> Digests:
    """Read photos for their digests, several at once, and keep these in the index.

    Parameters
    ----------
    paths : sequence of str
    index : DigestIndex
    progress : callable, optional
        Called as ``progress(done, total)``.
    """
    digests: Digests = {}
    blocks = [paths[start : start + _BLOCK] for start in range(0, len(paths), _BLOCK)]
    with ThreadPoolExecutor() as pool:
        for found, entries, moment in pool.map(_read_block, blocks):
            digests.update(found)
            index.record(entries, moment)
            if progress is not None:
                progress(len(digests), len(paths))
    return digests


def _read_block(paths: Sequence[str]) -> tuple[Digests, list[Entry], int]:
    moment = time.time_ns()
    digests: Digests = {}
    entries: list[Entry] = []
    for path in paths:
        try:
            check_name(path)
            digest, state = digest_photo(path)
            digests[path] = digest
            entries.append((path, state, digest))
        except ImageError as error:
            digests[path] = str(error)
    return digests, entries, moment
