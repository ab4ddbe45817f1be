"""Computes the features that the store does not have, and publishes them in shards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from featcache.bases.base import Base
from featcache.bases.resolution import SAMPLE
from featcache.errors import StoreError
from featcache.extraction.planning import plan_rows
from featcache.extraction.rows import key_of
from featcache.featurize import Photo, Seconds, decode_unchanged, featurize
from featcache.recipe import BaseSettings
from featcache.reporter import SILENT, Reporter
from featcache.store.base_store import BaseStore, Store
from featcache.store.plan import Key, Location, Plan, human_bytes

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
        Building or loading the network.
    computing : float
        From then to the last shard published.
    reading, decoding, inference, waiting : float
        Of all workers together: ``computing`` times `workers` in all.
    writing : float
        Publishing shards, concurrently with the workers.
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
        """Combine what workers and writer measured in `wall` seconds."""
        computing = max(wall - preparing, 1e-9)
        busy = spent.reading + spent.decoding + spent.inference
        waiting = max(0.0, computing * workers - busy)
        return cls(
            preparing, computing, spent.reading, spent.decoding, spent.inference, waiting, writing, workers
        )


@dataclass
class Extracted:
    """The rows of the requested photos.

    Attributes
    ----------
    locations : dict of Key to Location
        Rows that are now in the store.
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


def ensure(photos: Sequence[Photo], base: Base, store: Store, reporter: Reporter = SILENT) -> Extracted:
    """Make sure that the store has the features of all photos that can be decoded.

    Parameters
    ----------
    photos : sequence of Photo
        Duplicates are computed once.
    base : Base
    store : Store
    reporter : Reporter, optional

    Raises
    ------
    StoreError
        The store cannot be written: no room or no permission.
    FeaturesError
        The base gave values that are not finite.
    """
    extracted, missing, base_store = _stored_and_missing(photos, base, store, reporter)
    if missing:
        _compute(missing, base, base_store, extracted, reporter)
    return extracted


def _sample(photos: Sequence[Photo], settings: BaseSettings) -> NDArray[np.uint8] | None:
    """Decode the photos of the lowest digests, which are the same ones in every run."""
    plain = {photo.digest: photo for photo in photos if photo.view is None}
    _, pixels = decode_unchanged([plain[digest] for digest in sorted(plain)[:SAMPLE]], settings)
    return np.stack(pixels) if pixels else None


def _stored_and_missing(
    photos: Sequence[Photo], base: Base, store: Store, reporter: Reporter
) -> tuple[Extracted, list[Photo], BaseStore]:
    """Return what the store has, which photos are to be computed, and where to publish them.

    The plan is not returned: while photos are computed its tables would only take memory.
    """
    spec = base.resolve(lambda: _sample(photos, base.settings)).spec
    keys = [key_of(photo.digest, photo.view) for photo in photos]
    plan, base_store = plan_rows(keys, spec, store, reporter)
    _announce(plan, photos, reporter)
    if plan.refusal:
        raise StoreError(plan.refusal)
    return Extracted(dict(plan.reuse)), _first_of_each(plan.compute, photos), base_store


def _first_of_each(keys: Sequence[Key], photos: Sequence[Photo]) -> list[Photo]:
    by_key = {key_of(photo.digest, photo.view): photo for photo in reversed(photos)}
    return [by_key[key] for key in keys]


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
        # an interrupted run keeps its finished batches, too
        writer.publish()
    reporter.advance("computing", len(photos), len(photos))
    extracted.computed = done
    wall = time.perf_counter() - started
    extracted.profile = Profile.of(workers, writer.seconds, base.prepare_seconds, wall, base.parallel)


def _rows_per_shard(row_bytes: int, batch_size: int) -> int:
    rows = min(_SHARD_ROWS, _SHARD_BYTES // row_bytes)
    return max(1, rows // batch_size) * batch_size
