"""Stage 1: photos → base → store, and the feature file of a dataset.

Every photo's bytes are hashed; what is missing in the store is decoded, run through the base and published in
shards; then ``features.h5`` is written. `extract` reads like the data flow.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.bases.base import Base
from featcache.bases.resolution import Resolution
from featcache.extraction.compute import Extracted, Profile, ensure
from featcache.extraction.planning import plan_extraction
from featcache.extraction.publish import check_rows, skipped_photos, split_rows_of
from featcache.extraction.rows import key_of, keys_of, photos_of
from featcache.images.findings import Finding
from featcache.images.table import load_table
from featcache.recipe import Recipe
from featcache.reporter import SILENT, Reporter
from featcache.run.layout import FEATURE_FILE
from featcache.run.origin import keep_origin
from featcache.run.profile import keep_profile
from featcache.store.base_store import Store
from featcache.store.feature_file import Features
from featcache.store.feature_writer import Contents, write_feature_file

__all__ = ["Extracted", "Extraction", "Profile", "ensure", "extract", "key_of", "keys_of", "plan_extraction"]


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
    table = load_table(recipe.data, lambda done, total: reporter.advance("hashing", done, total))
    for warning in table.warnings:
        reporter.note(warning)
    store = Store(recipe.cache)
    base = Base(recipe.base, store, reporter.note)
    extracted = ensure(photos_of(table, recipe), base, store, reporter)
    skipped = skipped_photos(table, extracted)
    check_rows(table, extracted, skipped, recipe.data.strict)
    path = recipe.run / FEATURE_FILE
    splits = split_rows_of(recipe, table, extracted)
    base_store = store.base_store(base.spec.folder_name, base.spec.to_json())
    findings = [finding.to_json() for finding in table.findings]
    contents = Contents(table.classes, base_store.base, recipe.model_dump(mode="json"), skipped, findings)
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
