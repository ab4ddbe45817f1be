"""Compares the rows that are asked for with those that the store has, before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from featcache.bases.base import Base
from featcache.bases.resolution import Resolution
from featcache.bases.spec import BaseSpec
from featcache.extraction.rows import Wanted, keys_wanted, photos_of, wanted_of_found, wanted_of_table
from featcache.featurize import Photo
from featcache.images.findings import Finding
from featcache.images.index import DigestIndex
from featcache.images.rows import FoundPhoto, ImageTable, Notes
from featcache.images.source import why_not_opened
from featcache.images.table import Digests, assemble, find_photos, read_digests
from featcache.recipe import Recipe
from featcache.reporter import SILENT, Reporter
from featcache.store.base_store import BaseStore, Store
from featcache.store.format import INDEX_FILE
from featcache.store.plan import Key, Location, Plan, make_plan

# `info` reads photos that the index does not know only if they are few: this takes less than a second.
_READ_FOR_INFO_BYTES = 256 << 20


@dataclass(frozen=True)
class ExtractionPlan:
    """What `extract` would do.

    Attributes
    ----------
    found : list of FoundPhoto
    table : ImageTable or None
        None while there are photos that were not read yet: splits are drawn from the bytes.
    findings : tuple of Finding
        What should be looked at, as far as it is known without reading.
    unread : int
        Number of photos that were not read yet.
    to_compute : int
        Rows to compute, at most.
    resolution : Resolution or None
        Of the base. None when it was never built with this store: all rows are then to be computed.
    rows : Plan or None
        None together with `resolution`.
    """

    found: list[FoundPhoto]
    table: ImageTable | None
    findings: tuple[Finding, ...]
    unread: int
    to_compute: int
    resolution: Resolution | None
    rows: Plan | None


@dataclass(frozen=True)
class PlannedRows:
    """Which rows to reuse and which to compute.

    Attributes
    ----------
    plan : Plan
    present : dict of Key to Location
        Rows of the store: those that are reused or, if there are photos that were not read yet, all of them.
    base_store : BaseStore
        The base's part of the store.
    """

    plan: Plan
    present: dict[Key, Location]
    base_store: BaseStore


def plan_extraction(recipe: Recipe, reporter: Reporter = SILENT) -> ExtractionPlan:
    """Return what `extract` would do, without computing anything and without building a network.

    Photos that the index of digests does not know are read only if they have few bytes in all.
    """
    notes = Notes()
    found = find_photos(recipe.data, notes)
    with open_index(recipe, reporter) as index:
        digests = known_digests(found, index, recipe)
        unread = [photo.path for photo in found if photo.path not in digests]
        if sum(map(_size, unread)) <= _READ_FOR_INFO_BYTES:
            digests |= read_digests(unread, index, hashing(reporter))
            unread = []
    table = None if unread else assemble(found, digests, recipe.data, notes)
    findings = tuple(notes.findings)
    photos = photos_of(table) if table else photos_found(found, digests)
    wanted = wanted_of_table(recipe, table) if table else wanted_of_found(recipe, found)
    store = Store(recipe.cache)
    resolution = Base(recipe.base, store).known
    if resolution is None:
        to_compute = len(set(keys_wanted(photos, wanted))) + len(unread) * wanted.most_views
        return ExtractionPlan(found, table, findings, len(unread), to_compute, None, None)
    rows = plan_rows(photos, wanted, resolution.spec, store, reporter).plan
    return ExtractionPlan(found, table, findings, len(unread), rows.to_compute, resolution, rows)


def open_index(recipe: Recipe, reporter: Reporter) -> DigestIndex:
    """Return the index of digests in the recipe's store."""
    return DigestIndex(recipe.cache / INDEX_FILE, reporter.note)


def photos_found(found: Sequence[FoundPhoto], digests: Digests) -> list[Photo]:
    """Return the photos that can be read, with their digests where these are known."""
    known = ((photo.path, digests.get(photo.path, b"")) for photo in found)
    return [Photo(path, digest) for path, digest in known if isinstance(digest, bytes)]


def known_digests(found: Sequence[FoundPhoto], index: DigestIndex, recipe: Recipe) -> Digests:
    """Return the digests that need no reading, by path, and why photos cannot be opened."""
    digests: Digests = {}
    if not recipe.data.rehash:
        digests.update(index.find(photo.path for photo in found))
    for photo in found:
        if photo.path not in digests and (reason := why_not_opened(photo.path)):
            digests[photo.path] = reason
    return digests


def hashing(reporter: Reporter) -> Callable[[int, int], None]:
    """Return what shows the progress of reading photos for their digests."""
    return lambda done, total: reporter.advance("hashing", done, total)


def plan_rows(
    photos: Sequence[Photo], wanted: Wanted, spec: BaseSpec, store: Store, reporter: Reporter
) -> PlannedRows:
    """Compare the rows that are wanted with those that the store has."""
    keys = keys_wanted(photos, wanted)
    unread = sum(not photo.digest for photo in photos) * wanted.most_views
    base_store = store.base_store(spec.folder_name, spec.to_json())
    # any row of the base may be one of a photo that was not read yet
    present = base_store.find(None if unread else keys, reporter.note)
    plan = make_plan(keys, present, spec.row_bytes, store.free_bytes(), store.not_writable(), unread)
    return PlannedRows(plan, present, base_store)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except (OSError, ValueError):
        return 0
