"""Stage 1: photos → base → store, and the feature file through which a data set sees the store.

Every photo's bytes are hashed; what the store does not have yet is decoded, run through the base and
published in shards; then ``features.h5`` is written. Reading it top down is reading the data flow.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featcache.bases.base import Base
from featcache.bases.spec import BaseSpec
from featcache.errors import DataError, StoreError
from featcache.featurize import Photo, Seconds, featurize
from featcache.images.rows import SPLITS, ImageRow, ImageTable
from featcache.images.table import load_table
from featcache.images.views import View, views_of
from featcache.recipe import Recipe
from featcache.reporter import SILENT, Reporter
from featcache.run.layout import FEATURE_FILE
from featcache.store.base_store import BaseStore, Store
from featcache.store.feature_file import Features
from featcache.store.feature_writer import Contents, SplitRows, write_feature_file
from featcache.store.plan import Key, Location, Plan, human_bytes, make_plan

# A kill loses at most one unpublished shard: this much work, or this much time.
_SHARD_BYTES = 64 << 20
_SHARD_ROWS = 1024
_SHARD_SECONDS = 20.0


@dataclass(frozen=True)
class Profile:
    """Where the time of computing went, in seconds.

    Attributes
    ----------
    preparing : float
        Building or loading the network, before the first photo could go through it.
    computing : float
        From then to the last shard published.
    reading, decoding, inference, waiting : float
        Of all workers together: ``computing`` times `workers` in all.
    writing : float
        Publishing shards, beside the workers.
    workers : int
    """

    preparing: float = 0.0
    computing: float = 0.0
    reading: float = 0.0
    decoding: float = 0.0
    inference: float = 0.0
    waiting: float = 0.0
    writing: float = 0.0
    workers: int = 0

    def to_json(self) -> dict[str, float]:
        """Return the times as JSON-ready data."""
        return {name: round(value, 4) for name, value in asdict(self).items()}

    @classmethod
    def of(cls, spent: Seconds, writing: float, preparing: float, wall: float, workers: int) -> Profile:
        """Put together what workers and writer measured in `wall` seconds."""
        computing = max(wall - preparing, 1e-9)
        busy = spent.reading + spent.decoding + spent.inference
        waiting = max(0.0, computing * workers - busy)
        return cls(
            preparing, computing, spent.reading, spent.decoding, spent.inference, waiting, writing, workers
        )


@dataclass
class Extracted:
    """What became of the photos asked for.

    Attributes
    ----------
    locations : dict of Key to Location
        Rows that the store has now.
    failures : dict of Key to str
        Why a photo could not be decoded.
    computed : int
        Distinct photos, or views of them, that went through the base.
    profile : Profile
        Where the time went.
    """

    locations: dict[Key, Location]
    failures: dict[Key, str] = field(default_factory=dict)
    computed: int = 0
    profile: Profile = field(default_factory=lambda: Profile())


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
        Rows of features in it: a photo has one, or one for each of its views.
    computed : int
        Distinct rows that went through the base in this run.
    skipped : tuple of (path, reason)
        Photos without a row.
    warnings : tuple of str
        What a person should know about the data.
    seconds : float
        Of the whole stage.
    images_per_second : float
        Computed rows over the time of computing, without that of loading the network; 0 when nothing was
        computed.
    profile : Profile
        Where the time of computing went.
    cache : Path or None
        The store.
    """

    run: Path
    features_file: Path
    photos: int
    rows: int
    computed: int
    skipped: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    seconds: float
    images_per_second: float
    profile: Profile
    cache: Path | None = None

    @property
    def reused(self) -> int:
        """Rows whose features were not computed for them in this run."""
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
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
            "images_per_second": round(self.images_per_second, 2),
            "seconds": round(self.seconds, 3),
        }


def extract(recipe: Recipe, reporter: Reporter = SILENT) -> Extraction:
    """Make the recipe's feature file, computing only what the store does not have.

    Parameters
    ----------
    recipe : Recipe
    reporter : Reporter, optional
        Listens to the work.

    Returns
    -------
    Extraction

    Raises
    ------
    DataError
        The photos cannot make a data set, or a class has no readable photo.
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
    extracted = ensure(_photos(table, recipe), base, store, reporter)
    skipped = _skipped(table, extracted)
    _check_rows(table, extracted, skipped, recipe.data.strict)
    path = recipe.run / FEATURE_FILE
    splits = _splits(recipe, table, extracted)
    base_store = store.base_store(base.spec.folder_name, base.spec.to_json())
    contents = Contents(table.classes, base_store.base, recipe.model_dump(mode="json"), skipped)
    write_feature_file(path, splits, extracted.locations, base_store, contents)
    profile = extracted.profile
    return Extraction(
        recipe.run,
        path,
        photos=sum(len(rows.digests) for rows in splits.values()),
        rows=sum(len(rows.digests) * len(rows.views) for rows in splits.values()),
        computed=extracted.computed,
        skipped=tuple(skipped),
        warnings=table.warnings,
        seconds=time.monotonic() - started,
        images_per_second=extracted.computed / profile.computing if extracted.computed else 0.0,
        profile=profile,
        cache=recipe.cache,
    )


def _photos(table: ImageTable, recipe: Recipe) -> list[Photo]:
    """Return what to ask for: every photo, all its views one after another."""
    views = {split: _views(split, recipe) for split in SPLITS}
    return [Photo(row.path, row.digest, view) for row in table.rows for view in views[row.split]]


def _views(split: str, recipe: Recipe) -> list[View | None]:
    """Return the views of a split's photos: heads are trained on views and scored on plain photos."""
    trained_on = split == "train" or (split == "validation" and recipe.data.folds is not None)
    return views_of(recipe.augment if trained_on else None)


def plan_extraction(
    recipe: Recipe, reporter: Reporter = SILENT
) -> tuple[ImageTable, BaseSpec | None, Plan | None]:
    """Find out what `extract` would do, without doing it and without building a network.

    Returns
    -------
    table : ImageTable
    spec : BaseSpec or None
        None when this base was never built with this store: its rows are then all to be computed.
    plan : Plan or None
        None together with `spec`.
    """
    table = load_table(recipe.data, lambda done, total: reporter.advance("hashing", done, total))
    store = Store(recipe.cache)
    spec = Base(recipe.base, store).known_spec
    if spec is None:
        return table, None, None
    return table, spec, _plan(keys_of(table, recipe), spec, store, reporter)[0]


def keys_of(table: ImageTable, recipe: Recipe) -> list[Key]:
    """Return the rows of the store that a recipe asks for; a photo that stands twice gives them twice."""
    return [key_of(photo.digest, photo.view) for photo in _photos(table, recipe)]


def ensure(photos: Sequence[Photo], base: Base, store: Store, reporter: Reporter = SILENT) -> Extracted:
    """Make sure that the store has the features of all photos that can be decoded.

    Parameters
    ----------
    photos : sequence of Photo
        The same bytes may stand more than once; they are computed once.
    base : Base
    store : Store
    reporter : Reporter, optional

    Raises
    ------
    StoreError
        The store refuses: no room or no permission.
    FeaturesError
        The base gave something that is no number.
    """
    extracted, missing, base_store = _there_and_missing(photos, base.spec, store, reporter)
    if missing:
        _compute(missing, base, base_store, extracted, reporter)
    return extracted


def _there_and_missing(
    photos: Sequence[Photo], spec: BaseSpec, store: Store, reporter: Reporter
) -> tuple[Extracted, list[Photo], BaseStore]:
    """Return what the store has, which photos are to be computed, and where to.

    The plan ends here: while photos are computed its tables would only take memory.
    """
    plan, base_store = _plan([key_of(photo.digest, photo.view) for photo in photos], spec, store, reporter)
    _announce(plan, photos, reporter)
    if plan.refusal:
        raise StoreError(plan.refusal)
    return Extracted(dict(plan.reuse)), _first_of_each(plan.compute, photos), base_store


def _first_of_each(keys: Sequence[Key], photos: Sequence[Photo]) -> list[Photo]:
    by_key = {key_of(photo.digest, photo.view): photo for photo in reversed(photos)}
    return [by_key[key] for key in keys]


def _plan(keys: Sequence[Key], spec: BaseSpec, store: Store, reporter: Reporter) -> tuple[Plan, BaseStore]:
    base_store = store.base_store(spec.folder_name, spec.to_json())
    present = base_store.find(keys, reporter.note)
    plan = make_plan(keys, present, spec.row_bytes, store.free_bytes(), store.not_writable())
    return plan, base_store


def _announce(plan: Plan, photos: Sequence[Photo], reporter: Reporter) -> None:
    plain = sum(photo.view is None for photo in photos)
    asked = f"{plain:,} photos" if plain == len(photos) else f"{len(photos):,} views of {plain:,} photos"
    if plan.compute:
        reporter.note(
            f"{asked}: {len(plan.reuse):,} are in the store, {len(plan.compute):,} to compute, "
            f"{human_bytes(plan.bytes_to_write)} to write"
        )
    else:
        reporter.note(f"{asked}: all are in the store, nothing to compute")


def _compute(
    photos: list[Photo], base: Base, base_store: BaseStore, extracted: Extracted, reporter: Reporter
) -> None:
    started = time.perf_counter()
    reporter.advance("computing", 0, len(photos))
    rows_per_shard = _rows_per_shard(base.spec.row_bytes, base.settings.batch_size)
    writer = base_store.writer(rows_per_shard, _SHARD_SECONDS, extracted.locations)
    workers = Seconds()
    done = 0
    try:
        for batch in featurize(photos, base):
            workers.add(batch.seconds)
            extracted.failures.update({key_of(photo.digest, photo.view): why for photo, why in batch.failed})
            if batch.features is not None:
                writer.add([key_of(photo.digest, photo.view) for photo in batch.photos], batch.features)
                done += len(batch.photos)
            reporter.advance("computing", done + len(extracted.failures), len(photos))
    finally:
        # an interrupted run keeps its whole batches, too
        writer.publish()
    reporter.advance("computing", len(photos), len(photos))
    extracted.computed = done
    wall = time.perf_counter() - started
    extracted.profile = Profile.of(workers, writer.seconds, base.prepare_seconds, wall, base.parallel)


def _rows_per_shard(row_bytes: int, batch_size: int) -> int:
    rows = min(_SHARD_ROWS, _SHARD_BYTES // row_bytes)
    return max(1, rows // batch_size) * batch_size


def _failed(extracted: Extracted) -> dict[bytes, str]:
    """Return why photos are not used, by digest; one without all of its views is not used at all."""
    return {key.digest: why for key, why in extracted.failures.items()}


def _skipped(table: ImageTable, extracted: Extracted) -> list[tuple[str, str]]:
    failed = _failed(extracted)
    undecoded = [(row.path, failed[row.digest]) for row in table.rows if row.digest in failed]
    return [*table.unreadable, *undecoded]


def _check_rows(
    table: ImageTable, extracted: Extracted, skipped: Sequence[tuple[str, str]], strict: bool
) -> None:
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


def key_of(digest: bytes, view: View | None = None) -> Key:
    """Return what the store finds a photo's row by; without `view` that of the plain photo, view 0."""
    return Key(digest, 0 if view is None else view.key)


def _splits(recipe: Recipe, table: ImageTable, extracted: Extracted) -> dict[str, SplitRows]:
    rows = _usable(table, extracted)
    index = {label: number for number, label in enumerate(table.classes)}
    return {
        split: _split_rows([row for row in rows if row.split == split], index, _views(split, recipe))
        for split in SPLITS
    }


def _split_rows(
    rows: Sequence[ImageRow], index: Mapping[str, int], views: Sequence[View | None]
) -> SplitRows:
    labels = np.array([index[row.label] for row in rows], np.int64)
    numbers = [key_of(b"", view).view for view in views]
    augment = next((view.settings.model_dump(mode="json") for view in views if view is not None), {})
    return SplitRows([row.path for row in rows], labels, [row.digest for row in rows], numbers, augment)
