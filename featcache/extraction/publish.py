"""Writes the feature file from the rows of the store, after checking that every class has its photos."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from featcache.errors import DataError
from featcache.extraction.compute import Extracted
from featcache.extraction.rows import key_of, split_views
from featcache.images.rows import SPLITS, ImageRow, ImageTable
from featcache.images.views import View
from featcache.recipe import Recipe
from featcache.store.feature_writer import SplitRows


def _failed(extracted: Extracted) -> dict[bytes, str]:
    """Return why photos are not used, by digest; a photo with a missing view is not used at all."""
    return {key.digest: why for key, why in extracted.failures.items()}


def skipped_photos(table: ImageTable, extracted: Extracted) -> list[tuple[str, str]]:
    """Return the photos without a row, as (path, reason)."""
    failed = _failed(extracted)
    undecoded = [(row.path, failed[row.digest]) for row in table.rows if row.digest in failed]
    return [*table.unreadable, *undecoded]


def check_rows(
    table: ImageTable, extracted: Extracted, skipped: Sequence[tuple[str, str]], strict: bool
) -> None:
    """Raise a DataError where a class has no usable photo in a split; if `strict`, for any skipped photo."""
    if strict and skipped:
        path, reason = skipped[0]
        raise DataError(
            f"{len(skipped):,} photos cannot be used and --strict was asked for; "
            f"the first is {path}: {reason}"
        )
    asked, usable = _classes_by_split(table.rows), _classes_by_split(_usable(table, extracted))
    for split, label in sorted(asked - usable):
        raise DataError(
            f"class {label!r} has no readable photo in {split}; repair or add photos, or remove its folder"
        )


def _classes_by_split(rows: Iterable[ImageRow]) -> set[tuple[str, str]]:
    return {(row.split, row.label) for row in rows}


def _usable(table: ImageTable, extracted: Extracted) -> list[ImageRow]:
    failed = _failed(extracted)
    return [row for row in table.rows if row.digest not in failed]


def split_rows_of(recipe: Recipe, table: ImageTable, extracted: Extracted) -> dict[str, SplitRows]:
    """Return the rows of each split's usable photos."""
    rows = _usable(table, extracted)
    index = {label: number for number, label in enumerate(table.classes)}
    return {
        split: _split_rows([row for row in rows if row.split == split], index, split_views(split, recipe))
        for split in SPLITS
    }


def _split_rows(
    rows: Sequence[ImageRow], index: Mapping[str, int], views: Sequence[View | None]
) -> SplitRows:
    labels = np.array([index[row.label] for row in rows], np.int64)
    numbers = [key_of(b"", view).view for view in views]
    augment = next((view.settings.model_dump(mode="json") for view in views if view is not None), {})
    return SplitRows([row.path for row in rows], labels, [row.digest for row in rows], numbers, augment)
