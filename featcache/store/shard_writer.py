"""Collects features in batches and writes them as shards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.store import shards
from featcache.store.plan import Key, Location


class ShardWriter:
    """Collects batches and publishes them as shards.

    A shard is closed only between batches: a run that continues after a kill then forms the same batches,
    and its numbers are the same to the last bit.
    """

    def __init__(
        self,
        folder: Path,
        base: dict[str, Any],
        rows_per_shard: int,
        seconds_per_shard: float,
        locations: dict[Key, Location],
        fact_names: tuple[str, ...] = (),
    ) -> None:
        self._fact_names = fact_names
        self._folder, self._base = folder, base
        self._rows_per_shard = rows_per_shard
        self._seconds_per_shard = seconds_per_shard
        self._started = time.monotonic()
        self._keys: list[Key] = []
        self._ranks: list[int] = []
        self._facts: list[NDArray[np.float32]] = []
        # one block of memory for all shards: it is filled again and again
        self._rows: NDArray[Any] | None = None
        self.locations = locations
        self.seconds = 0.0

    def add(
        self,
        keys: list[Key],
        features: NDArray[Any],
        ranks: Sequence[int] = (),
        facts: NDArray[np.float32] | None = None,
    ) -> None:
        """Add one batch.

        Parameters
        ----------
        keys : list of Key
        features : ndarray, shape (n, ...)
        ranks : sequence of int, optional
            A shard's rows are sorted by them: what is read together lies together.
        facts : ndarray of float32, shape (n, number of facts), optional
            Of the photos, in the order of the names that the writer was made with.
        """
        if self._rows is None or len(self._keys) + len(keys) > len(self._rows):
            self._rows = self._with_room_for(len(self._keys) + len(keys), features)
        self._rows[len(self._keys) : len(self._keys) + len(keys)] = features
        self._keys.extend(keys)
        self._ranks.extend(ranks or [0] * len(keys))
        if facts is None:
            facts = np.full((len(keys), len(self._fact_names)), np.nan, np.float32)
        self._facts.append(facts)
        full = len(self._keys) >= self._rows_per_shard
        if full or time.monotonic() - self._started >= self._seconds_per_shard:
            self.publish()

    def _with_room_for(self, count: int, features: NDArray[Any]) -> NDArray[Any]:
        rows = np.empty((max(count, self._rows_per_shard), *features.shape[1:]), features.dtype)
        if self._rows is not None:
            rows[: len(self._keys)] = self._rows[: len(self._keys)]
        return rows

    def publish(self) -> None:
        """Write what was collected as a shard, if there is anything."""
        started = time.monotonic()
        if self._rows is not None and self._keys:
            keys, rows, facts = self._sorted(self._rows[: len(self._keys)], np.concatenate(self._facts))
            known = shards.Facts(self._fact_names, facts) if self._fact_names else None
            path = shards.write_shard(self._folder, keys, rows, self._base, known)
            self.locations.update({key: Location(path.name, row) for row, key in enumerate(keys)})
        self._keys, self._ranks, self._facts, self._started = [], [], [], time.monotonic()
        self.seconds += self._started - started

    def _sorted(
        self, rows: NDArray[Any], facts: NDArray[np.float32]
    ) -> tuple[list[Key], NDArray[Any], NDArray[np.float32]]:
        """Return keys, rows and facts by rank; those of one rank stay in the order that they came in."""
        if self._ranks == sorted(self._ranks):
            return self._keys, rows, facts
        order = np.argsort(self._ranks, kind="stable")
        return [self._keys[place] for place in order], rows[order], facts[order]
