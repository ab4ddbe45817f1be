"""Computes the features that the store does not have, and publishes them in shards."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from featcache.bases.base import Base
from featcache.bases.resolution import SAMPLE
from featcache.errors import StoreError
from featcache.extraction.planning import hashing, plan_rows
from featcache.extraction.rows import Wanted, key_of
from featcache.featurize import Batch, Photo, Seconds, decode_unchanged, featurize
from featcache.images.facts import FACTS
from featcache.images.index import DigestIndex
from featcache.images.table import Digests, read_digests
from featcache.images.views import View
from featcache.recipe import BaseSettings
from featcache.reporter import SILENT, Reporter
from featcache.store.base_store import BaseStore, Store
from featcache.store.plan import Key, Location, Plan, continued, human_bytes

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
    """The rows of the wanted photos.

    Attributes
    ----------
    locations : dict of Key to Location
        Rows that are now in the store.
    digests : dict of str to bytes or str
        By path, of every photo: its digest, or why it could not be read.
    failures : dict of Key to str
        Why a photo could not be decoded.
    computed : int
        Distinct photos, or views of them, that went through the base.
    profile : Profile
        Where the time went.
    """

    locations: dict[Key, Location]
    digests: Digests = field(default_factory=dict)
    failures: dict[Key, str] = field(default_factory=dict)
    computed: int = 0
    profile: Profile = field(default_factory=lambda: Profile())

    def has_all(self, photo: Photo, wanted: Wanted) -> bool:
        """Whether every row of a photo is in the store or cannot be computed."""
        keys = (key_of(photo.digest, view) for view in wanted.views(photo, photo.digest))
        return all(key in self.locations or key in self.failures for key in keys)

    def add(self, more: Extracted) -> None:
        """Add what was extracted afterwards."""
        self.locations.update(more.locations)
        self.failures.update(more.failures)
        self.computed += more.computed


def ensure(
    photos: Sequence[Photo],
    wanted: Wanted,
    base: Base,
    store: Store,
    index: DigestIndex,
    reporter: Reporter = SILENT,
) -> Extracted:
    """Make sure that the store has the features of all photos that can be decoded.

    Parameters
    ----------
    photos : sequence of Photo
        Those without a digest are read for it, and decoded from the same bytes. Duplicates are computed once.
    wanted : Wanted
        Which views of them.
    base : Base
    store : Store
    index : DigestIndex
        Keeps the digests of photos that are read.
    reporter : Reporter, optional

    Raises
    ------
    StoreError
        The store cannot be written: no room or no permission.
    FeaturesError
        The base gave values that are not finite.
    """
    spec = base.resolve(lambda: _sample(photos, base.settings)).spec
    digests: Digests = {photo.path: photo.digest for photo in photos if photo.digest}
    rows = plan_rows(photos, wanted, spec, store, reporter)
    if rows.plan.refusal and rows.plan.unread:
        # perhaps most rows are in the store; only the digests can tell
        unread = [photo.path for photo in photos if not photo.digest]
        digests |= read_digests(unread, index, hashing(reporter))
        known = ((photo.path, digests[photo.path]) for photo in photos)
        photos = [Photo(path, digest) for path, digest in known if isinstance(digest, bytes)]
        rows = plan_rows(photos, wanted, spec, store, reporter)
    _announce(rows.plan, photos, reporter)
    if rows.plan.refusal:
        raise StoreError(rows.plan.refusal)
    extracted = Extracted(rows.present, digests)
    if rows.plan.to_compute:
        claims = _Claims(wanted, rows.present)
        missing = continued(photos, lambda photo: claims.is_done(photo))
        _compute(missing, wanted, claims, base, rows.base_store, extracted, index, reporter)
    return extracted


class _Claims:
    """Gives each missing row to the first photo that needs it."""

    def __init__(self, wanted: Wanted, present: Mapping[Key, Location]) -> None:
        self._wanted = wanted
        self._taken = set(present)
        self._lock = threading.Lock()

    def is_done(self, photo: Photo) -> bool:
        """Whether all rows of a photo are in the store; of one that was not read that is not known."""
        views = self._wanted.views(photo, photo.digest) if photo.digest else ()
        return bool(photo.digest) and all(key_of(photo.digest, view) in self._taken for view in views)

    def __call__(self, photo: Photo, digest: bytes) -> list[View | None]:
        """Return the views of a photo that nobody else computes."""
        keys = {key_of(digest, view): view for view in self._wanted.views(photo, digest)}
        with self._lock:
            mine = [key for key in keys if key not in self._taken]
            self._taken.update(mine)
        return [keys[key] for key in mine]


def _sample(photos: Sequence[Photo], settings: BaseSettings) -> NDArray[np.uint8] | None:
    """Decode some photos from all parts of the data set, the same ones in every run."""
    step = max(1, len(photos) // SAMPLE)
    _, pixels = decode_unchanged(photos[::step][:SAMPLE], settings)
    return np.stack(pixels) if pixels else None


def _announce(plan: Plan, photos: Sequence[Photo], reporter: Reporter) -> None:
    wanted = len(plan.reuse) + plan.to_compute
    asked = (
        f"{len(photos):,} photos" if wanted <= len(photos) else f"{wanted:,} views of {len(photos):,} photos"
    )
    at_most = "at most " if plan.unread else ""
    if plan.to_compute:
        reporter.note(
            f"{asked}: {len(plan.reuse):,} are in the store, {at_most}{plan.to_compute:,} to compute, "
            f"{at_most}{human_bytes(plan.bytes_to_write)} to write"
        )
    else:
        reporter.note(f"{asked}: all are in the store, nothing to compute")


def _compute(
    photos: list[Photo],
    wanted: Wanted,
    claims: _Claims,
    base: Base,
    base_store: BaseStore,
    extracted: Extracted,
    index: DigestIndex,
    reporter: Reporter,
) -> None:
    started = time.perf_counter()
    reporter.advance("computing", 0, len(photos))
    rows_per_shard = _rows_per_shard(base.spec.row_bytes, base.settings.batch_size)
    writer = base_store.writer(rows_per_shard, _SHARD_SECONDS, extracted.locations, FACTS)
    workers = Seconds()
    done = 0
    try:
        for batch in featurize(photos, base, claims, wanted.most_views):
            workers.add(batch.seconds)
            index.record(batch.read, batch.moment)
            _note_read(batch, extracted)
            if batch.features is not None:
                keys = [key_of(photo.digest, photo.view) for photo in batch.photos]
                ranks = [wanted.rank(photo) for photo in batch.photos]
                writer.add(keys, batch.features, ranks, np.stack(batch.facts))
                extracted.computed += len(batch.photos)
            done += len(batch.asked)
            reporter.advance("computing", done, len(photos))
    finally:
        # an interrupted run keeps its finished batches, too
        writer.publish()
    wall = time.perf_counter() - started
    extracted.profile = Profile.of(workers, writer.seconds, base.prepare_seconds, wall, base.parallel)


def _note_read(batch: Batch, extracted: Extracted) -> None:
    """Keep what was found out about the photos of a batch."""
    extracted.digests.update({path: digest for path, _, digest in batch.read})
    for photo, why in batch.failed:
        if photo.digest:
            extracted.failures[key_of(photo.digest, photo.view)] = why
        else:
            extracted.digests[photo.path] = why


def _rows_per_shard(row_bytes: int, batch_size: int) -> int:
    rows = min(_SHARD_ROWS, _SHARD_BYTES // row_bytes)
    return max(1, rows // batch_size) * batch_size
