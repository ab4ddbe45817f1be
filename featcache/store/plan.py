"""What to reuse, what to compute, or why not to begin: decided from plain data, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Beside the rows a shard holds their keys and HDF5's own bookkeeping.
_OVERHEAD_PER_ROW = 64
_OVERHEAD = 1 << 20


class Key(NamedTuple):
    """What a row of the store is found by, within one base: a photo, and 0 or the number of another view."""

    digest: bytes
    view: int


class Location(NamedTuple):
    """Where a row is: the shard's file name and the row in it."""

    shard: str
    row: int


@dataclass(frozen=True)
class Plan:
    """What an extraction will do.

    Attributes
    ----------
    reuse : mapping of Key to Location
        Rows that are there.
    compute : tuple of Key
        Rows to compute, each once, in the order they were asked for, but first those behind what is there.
    row_bytes : int
        Size of one row's features.
    refusal : str or None
        Why the work cannot begin; None when it can.
    """

    reuse: Mapping[Key, Location]
    compute: tuple[Key, ...]
    row_bytes: int
    refusal: str | None = None

    @property
    def bytes_to_write(self) -> int:
        """Bytes that the computed rows will take on disk."""
        if not self.compute:
            return 0
        return len(self.compute) * (self.row_bytes + _OVERHEAD_PER_ROW) + _OVERHEAD


def make_plan(
    wanted: Sequence[Key],
    present: Mapping[Key, Location],
    row_bytes: int,
    free_bytes: int,
    not_writable: str | None = None,
) -> Plan:
    """Decide which rows are reused and which are computed, or refuse.

    Parameters
    ----------
    wanted : sequence of Key
        Rows asked for; a key may stand more than once.
    present : mapping of Key to Location
        Rows that the store has.
    row_bytes : int
        Size of one row.
    free_bytes : int
        Room on the store's disk.
    not_writable : str, optional
        Why the store cannot be written, if so.
    """
    distinct = list(dict.fromkeys(wanted))
    compute = tuple(_continued(distinct, present))
    reuse = {key: present[key] for key in distinct if key in present}
    plan = Plan(reuse, compute, row_bytes)
    return Plan(reuse, compute, row_bytes, _refusal(plan, free_bytes, not_writable))


def _continued(wanted: Sequence[Key], present: Mapping[Key, Location]) -> list[Key]:
    """Return the missing keys, those behind the last present one first.

    Rows are published in order, so what is missing before it could not be decoded by the run that
    stopped there. Coming last, it leaves the others in the batches that they would have been in: with
    TensorFlow the last bits of a row depend on its place in the batch.
    """
    reached = max((place for place, key in enumerate(wanted) if key in present), default=-1) + 1
    return [key for key in (*wanted[reached:], *wanted[:reached]) if key not in present]


def _refusal(plan: Plan, free_bytes: int, not_writable: str | None) -> str | None:
    if not plan.compute:
        return None
    if not_writable:
        return (
            f"{len(plan.compute):,} rows are to be computed, but the store cannot be written: {not_writable}"
        )
    if plan.bytes_to_write > free_bytes:
        views = sum(key.view != 0 for key in plan.compute)
        which = f" ({views:,} of them augmented views)" if views else ""
        fewer = "take fewer augment.views, " if views else ""
        return (
            f"{len(plan.compute):,} rows{which} need {human_bytes(plan.bytes_to_write)}, but the store's "
            f"disk has {human_bytes(free_bytes)} free; {fewer}make room, choose another disk with --cache, "
            'or make rows smaller with pooling = "avg"'
        )
    return None


def human_bytes(count: float) -> str:
    """Write a number of bytes for a person: 1.5 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
