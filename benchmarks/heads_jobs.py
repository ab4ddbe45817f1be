"""What is trained: data, heads, and which of them the peer trains.

featcache is not imported: the peer's process has only what its users have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
DROPOUTS = (0.0, 0.2, 0.4, 0.6)
PENALTIES = (0.0, 1e-5, 1e-4, 1e-3)

# Distance of the two classes' means, in standard deviations of every feature: nobody can tell more than
# 93% of the rows apart, since Φ(1.5) = 0.93.
_DISTANCE = 3.0

# On the diagonal of the grid every value of every setting stands once, as often as in the whole grid.
_DIAGONAL = len(PENALTIES) * (len(DROPOUTS) + 1) + 1

Rows = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class Head:
    """Settings of one head, trained by Adam; the last layer has one output."""

    units: tuple[int, ...] = ()
    dropout: float = 0.0
    learning_rate: float = 1e-3
    l2: float = 0.0


@dataclass(frozen=True)
class Job:
    """Heads to train on the same rows.

    Attributes
    ----------
    name : str
    bar : float
        How many times faster than the peer featcache should be.
    heads : tuple of Head
    every : int
        The peer trains the first of every so many, and its time is multiplied up to all heads.
    features, rows, held_out : int
        Numbers per row; rows to train on; rows measured after every epoch.
    epochs, batch_size : int
    """

    name: str
    bar: float
    heads: tuple[Head, ...]
    every: int = 1
    features: int = 1280
    rows: int = 2000
    held_out: int = 1000
    epochs: int = 10
    batch_size: int = 32

    @property
    def title(self) -> str:
        count = "one head" if len(self.heads) == 1 else f"{len(self.heads)} heads"
        sizes = " → ".join(f"{size:,}" for size in (self.features, *self.heads[0].units, 1))
        return f"{self.name}: {count} {sizes}, {self.rows:,} rows, {self.epochs} epochs of {self.batch_size}"

    @property
    def peer_heads(self) -> tuple[Head, ...]:
        return self.heads[:: self.every]


def _grid(units: tuple[int, ...]) -> tuple[Head, ...]:
    settings = product(LEARNING_RATES, DROPOUTS, PENALTIES)
    return tuple(Head(units, dropout, rate, l2) for rate, dropout, l2 in settings)


JOBS = (
    Job(
        "dense",
        bar=4,
        heads=(Head((256,), 0.5, 1e-4),),
        features=8192,
        epochs=30,
        batch_size=64,
    ),
    Job("linear", bar=8, heads=(Head(),)),
    Job("linear_grid", bar=200, heads=_grid(()), every=_DIAGONAL),
    Job("dense_grid", bar=12, heads=_grid((128,)), every=_DIAGONAL),
)


# of a depth that none of the jobs has: nothing that is traced for it serves them
WARM_UP = Job("warm_up", bar=1, heads=(Head((2, 2)),), features=4, rows=64, held_out=32, epochs=1)


def jobs(names: Sequence[str], quick: bool = False) -> list[Job]:
    """Return the jobs among these names; `quick` makes them too small to mean anything."""
    return [_small(job) if quick else job for job in JOBS if job.name in names]


def _small(job: Job) -> Job:
    return replace(job, every=len(job.heads), features=32, rows=128, held_out=64, epochs=2)


def draw(job: Job) -> tuple[Rows, Rows]:
    """Return rows to train on and rows to measure: two classes with overlapping normal distributions."""
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(job.features, np.float32)
    direction *= _DISTANCE / np.linalg.norm(direction)
    return _rows(rng, job.rows, direction), _rows(rng, job.held_out, direction)


def _rows(rng: np.random.Generator, count: int, direction: NDArray[np.float32]) -> Rows:
    labels = rng.integers(0, 2, count)
    noise = rng.standard_normal((count, len(direction)), np.float32)
    return noise + np.outer((labels - 0.5).astype(np.float32), direction), labels
