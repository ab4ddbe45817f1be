"""Stage 1: photos → base → store, and the feature file of a dataset.

Photos that have changed are read; what is missing in the store is decoded, run through the base and published
in shards; then ``features.h5`` is written. `extract` reads like the data flow.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featcache.bases.base import Base
from featcache.bases.resolution import Resolution
from featcache.extraction.compute import Extracted, Profile, ensure
from featcache.extraction.planning import known_digests, open_index, photos_found, plan_extraction
from featcache.extraction.publish import (
    check_rows,
    failed_digests,
    findings_in_pictures,
    group_names,
    skipped_photos,
    split_rows_of,
)
from featcache.extraction.rows import photos_of, wanted_of_found, wanted_of_table
from featcache.images.findings import Finding
from featcache.images.rows import FoundPhoto, ImageTable, Notes
from featcache.images.table import Digests, assemble, find_photos, without_broken
from featcache.recipe import Recipe
from featcache.reporter import SILENT, Reporter
from featcache.run.layout import FEATURE_FILE
from featcache.run.origin import keep_origin
from featcache.run.profile import keep_profile
from featcache.store.base_store import Store
from featcache.store.feature_file import Features
from featcache.store.feature_writer import Contents, write_feature_file

__all__ = ["Extracted", "Extraction", "Profile", "ensure", "extract", "plan_extraction"]


@dataclass(frozen=True)
class Extraction:
    """Result of stage 1.

    Attributes
    ----------
    run : Path
        Folder of the recipe's results.
    features_file : Path
    photos : int
        Photos in the feature file.
    rows : int
        Rows of features in it, one per photo and view.
    computed : int
        Distinct rows that went through the base in this run.
    skipped : tuple of (path, reason)
        Photos without a row.
    findings : tuple of Finding
        Of the data.
    seconds : float
        Of the whole stage.
    images_per_second : float
        Computed rows over the time of computing, without that of loading the network; 0 when nothing was
        computed.
    profile : Profile
        Where the time of computing went.
    base : Resolution
        The base's spec, and how its precision was chosen.
    cache : Path
        The store.
    """

    run: Path
    features_file: Path
    photos: int
    rows: int
    computed: int
    skipped: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    seconds: float
    images_per_second: float
    profile: Profile
    base: Resolution
    cache: Path

    @property
    def reused(self) -> int:
        """Rows whose features were not computed in this run."""
        return self.rows - self.computed

    def open(self) -> Features:
        """Open the feature file."""
        return Features(self.features_file, self.cache)

    def __getitem__(self, split: str) -> Any:
        return self.open()[split]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        return {
            "run": str(self.run),
            "features_file": str(self.features_file),
            "photos": self.photos,
            "rows": self.rows,
            "computed": self.computed,
            "reused": self.reused,
            **self.base.facts,
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
            "findings": [finding.to_json() for finding in self.findings],
            "images_per_second": round(self.images_per_second, 2),
            "seconds": round(self.seconds, 3),
        }


def extract(recipe: Recipe, reporter: Reporter = SILENT) -> Extraction:
    """Write the recipe's feature file, computing only what is missing in the store.

    Parameters
    ----------
    recipe : Recipe
    reporter : Reporter, optional
        Receives progress and notes.

    Returns
    -------
    Extraction

    Raises
    ------
    DataError
        The photos are not a valid dataset, or a class has no readable photo.
    BaseNetworkError, WeightsError
        The base cannot be built.
    StoreError
        No room or no permission; what was published before stays valid.
    """
    started = time.monotonic()
    store = Store(recipe.cache)
    base = Base(recipe.base, store, reporter.note)
    table, extracted = _table_and_rows(recipe, base, store, reporter)
    skipped = skipped_photos(table, extracted)
    base_store = store.base_store(base.spec.folder_name, base.spec.to_json())
    more = check_rows(table, extracted, skipped, recipe.data)
    more += findings_in_pictures(table, extracted, base_store)
    for finding in more:
        reporter.note(finding.text)
    table = replace(table, findings=(*table.findings, *more))
    path = recipe.run / FEATURE_FILE
    splits = split_rows_of(recipe, table, extracted)
    findings = [finding.to_json() for finding in table.findings]
    groups = group_names(table, extracted)
    contents = Contents(
        table.classes, base_store.base, recipe.model_dump(mode="json"), skipped, findings, groups
    )
    write_feature_file(path, splits, extracted.locations, base_store, contents)
    keep_origin(recipe, base.spec.folder_name)
    profile = extracted.profile
    extraction = Extraction(
        recipe.run,
        path,
        photos=sum(len(rows.digests) for rows in splits.values()),
        rows=sum(len(rows.digests) * len(rows.views) for rows in splits.values()),
        computed=extracted.computed,
        skipped=tuple(skipped),
        findings=table.findings,
        seconds=time.monotonic() - started,
        images_per_second=extracted.computed / profile.computing if extracted.computed else 0.0,
        profile=profile,
        base=base.resolve(),
        cache=recipe.cache,
    )
    keep_profile(recipe.run, extraction.to_json() | {"profile": profile.to_json()})
    return extraction


def _table_and_rows(
    recipe: Recipe, base: Base, store: Store, reporter: Reporter
) -> tuple[ImageTable, Extracted]:
    """Return the photos, divided into splits, and their rows in the store.

    Splits are drawn from the photos' bytes, and a photo is read once: one that the index does not know is
    computed before all splits are known.
    """
    notes = Notes()
    found = find_photos(recipe.data, notes)
    with open_index(recipe, reporter) as index:
        digests = known_digests(found, index, recipe)
        if all(photo.path in digests for photo in found):
            table = _assembled(found, digests, recipe, notes, reporter)
            photos, wanted = photos_of(table), wanted_of_table(recipe, table)
            extracted = ensure(photos, wanted, base, store, index, reporter)
            complete = _with_train_of_each_class(table, extracted, recipe, reporter)
            if complete is table:
                return table, extracted
        else:
            photos, wanted = photos_found(found, digests), wanted_of_found(recipe, found)
            extracted = ensure(photos, wanted, base, store, index, reporter)
            table = _assembled(found, digests | extracted.digests, recipe, notes, reporter)
            complete = _with_train_of_each_class(table, extracted, recipe, reporter)
        # a photo that was moved to train, because its class had none there, has its views only now
        wanted = wanted_of_table(recipe, complete)
        lacking = [photo for photo in photos_of(complete) if not extracted.has_all(photo, wanted)]
        if lacking:
            extracted.add(ensure(lacking, wanted, base, store, index, reporter))
        return complete, extracted


def _assembled(
    found: list[FoundPhoto], digests: Digests, recipe: Recipe, notes: Notes, reporter: Reporter
) -> ImageTable:
    table = assemble(found, digests, recipe.data, notes)
    for warning in table.warnings:
        reporter.note(warning)
    return table


def _with_train_of_each_class(
    table: ImageTable, extracted: Extracted, recipe: Recipe, reporter: Reporter
) -> ImageTable:
    """Where all photos drawn for a class's training are broken, take another one."""
    kept = without_broken(table, failed_digests(extracted), recipe.data.seed)
    if kept is not table:
        reporter.note(kept.findings[-1].text)
    return kept
