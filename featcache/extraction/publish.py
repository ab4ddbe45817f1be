"""Writes the feature file from the rows of the store, after checking that every class has its photos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from featcache.errors import DataError
from featcache.extraction.compute import Extracted
from featcache.extraction.rows import key_of, split_views
from featcache.images.division import learned_splits
from featcache.images.facts import FACTS, picture_findings
from featcache.images.findings import Finding
from featcache.images.rows import SPLITS, ImageRow, ImageTable
from featcache.images.views import View
from featcache.images.wording import some
from featcache.recipe import DataSettings, Recipe
from featcache.store.base_store import BaseStore
from featcache.store.feature_writer import SplitRows
from featcache.store.plan import Key


def _failed(extracted: Extracted) -> dict[bytes, str]:
    """Return why photos are not used, by digest; a photo with a missing view is not used at all."""
    return {key.digest: why for key, why in extracted.failures.items()}


def skipped_photos(table: ImageTable, extracted: Extracted) -> list[tuple[str, str]]:
    """Return the photos without a row, as (path, reason)."""
    failed = _failed(extracted)
    undecoded = [(row.path, failed[row.digest]) for row in table.rows if row.digest in failed]
    return [*table.unreadable, *undecoded]


def failed_digests(extracted: Extracted) -> set[bytes]:
    """Return the photos of which a view that was asked for could not be decoded."""
    return set(_failed(extracted))


def check_rows(
    table: ImageTable, extracted: Extracted, skipped: Sequence[tuple[str, str]], settings: DataSettings
) -> list[Finding]:
    """Check what is left of the photos without those that could not be decoded.

    Returns
    -------
    list of Finding
        Splits that heads are only scored on, of which a class has no photo left.

    Raises
    ------
    DataError
        A class has no photo left to learn from, a split is empty, or ``data.strict`` and a photo was skipped.
    """
    if settings.strict and skipped:
        path, reason = skipped[0]
        raise DataError(
            f"{len(skipped):,} photos cannot be used and --strict was asked for; "
            f"the first is {path}: {reason}"
        )
    learned = learned_splits(settings)
    asked, usable = _classes_by_split(table.rows), _classes_by_split(_usable(table, extracted))
    trained = {label for split in learned for label in usable[split]}
    for label in table.classes:
        if label not in trained:
            raise DataError(
                f"class {label!r} has no readable photo in train; repair or add photos, or remove its folder"
            )
    findings = []
    for split in dict.fromkeys((*table.drawn, *asked)):
        labels = asked[split]
        if not usable[split] and (split == "train" or split not in learned):
            raise DataError(f"{split} has no readable photo; repair or add photos, or remove {split}")
        broken = sorted(labels - usable[split])
        if broken and split not in learned:
            text = f"{split} has no readable photo of {some(broken)}, so they are not scored."
            findings.append(Finding("class_missing", (), text))
    return findings


def findings_in_pictures(table: ImageTable, extracted: Extracted, base_store: BaseStore) -> list[Finding]:
    """Return what should be looked at in the photos themselves, from the facts that the store has of them."""
    rows = _usable(table, extracted)
    places = [extracted.locations[Key(row.digest, 0)] for row in rows]
    return picture_findings([row.path for row in rows], base_store.facts(places, FACTS))


def _classes_by_split(rows: Iterable[ImageRow]) -> dict[str, set[str]]:
    labels: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        labels[row.split].add(row.label)
    return labels


def _usable(table: ImageTable, extracted: Extracted) -> list[ImageRow]:
    failed = _failed(extracted)
    return [row for row in table.rows if row.digest not in failed]


def split_rows_of(recipe: Recipe, table: ImageTable, extracted: Extracted) -> dict[str, SplitRows]:
    """Return the rows of each split's usable photos."""
    rows = _usable(table, extracted)
    classes = {label: number for number, label in enumerate(table.classes)}
    groups = {name: number for number, name in enumerate(group_names(table, extracted))}
    has_weights = any(row.weight != 1 for row in rows)
    found = {}
    for split in SPLITS:
        in_split = [row for row in rows if row.split == split]
        plain = _split_rows(in_split, classes, split_views(split, recipe))
        found[split] = replace(
            plain,
            groups=np.array([groups.get(row.group, -1) for row in in_split], np.int64) if groups else None,
            weights=np.array([row.weight for row in in_split], np.float64) if has_weights else None,
        )
    return found


def group_names(table: ImageTable, extracted: Extracted) -> list[str]:
    """Return the names of the groups of the usable photos, sorted."""
    return sorted({row.group for row in _usable(table, extracted) if row.group})


def _split_rows(
    rows: Sequence[ImageRow], index: Mapping[str, int], views: Sequence[View | None]
) -> SplitRows:
    labels = np.array([index[row.label] for row in rows], np.int64)
    numbers = [key_of(b"", view).view for view in views]
    augment = next((view.settings.model_dump(mode="json") for view in views if view is not None), {})
    return SplitRows([row.path for row in rows], labels, [row.digest for row in rows], numbers, augment)
