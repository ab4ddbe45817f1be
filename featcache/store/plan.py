"""What to reuse, what to compute, or why not to begin: decided from plain data, before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

# Beside the rows a shard holds their keys and HDF5's own bookkeeping.
_OVERHEAD_PER_ROW = 64
_OVERHEAD = 1 << 20

T = TypeVar("T")


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
    unread : int
        Rows of photos that were not read yet: how many of them are in the store is not known.
    """

    reuse: Mapping[Key, Location]
    compute: tuple[Key, ...]
    row_bytes: int
    refusal: str | None = None
    unread: int = 0

    @property
    def to_compute(self) -> int:
        """Rows to compute, at most."""
        return len(self.compute) + self.unread

    @property
    def bytes_to_write(self) -> int:
        """Bytes that the computed rows will take on disk, at most."""
        if not self.to_compute:
            return 0
        return self.to_compute * (self.row_bytes + _OVERHEAD_PER_ROW) + _OVERHEAD


def make_plan(
    wanted: Sequence[Key],
    present: Mapping[Key, Location],
    row_bytes: int,
    free_bytes: int,
    not_writable: str | None = None,
    unread: int = 0,
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
    unread : int
        Rows of photos that were not read yet, and whose keys are not known.
    """
    distinct = list(dict.fromkeys(wanted))
    compute = tuple(continued(distinct, present.__contains__))
    reuse = {key: present[key] for key in distinct if key in present}
    plan = Plan(reuse, compute, row_bytes, unread=unread)
    return replace(plan, refusal=_refusal(plan, free_bytes, not_writable))


def continued(wanted: Sequence[T], is_done: Callable[[T], bool]) -> list[T]:
    """Return what is not done, first what comes behind the last that is.

    Rows are published in order, so what is missing before it could not be decoded by the run that
    stopped there. Coming last, it leaves the others in the batches that they would have been in: with
    TensorFlow the last bits of a row depend on its place in the batch.
    """
    done = [is_done(one) for one in wanted]
    reached = len(done) - done[::-1].index(True) if True in done else 0
    order = (*range(reached, len(wanted)), *range(reached))
    return [wanted[place] for place in order if not done[place]]


def _refusal(plan: Plan, free_bytes: int, not_writable: str | None) -> str | None:
    if not plan.to_compute:
        return None
    count = f"{'at most ' if plan.unread else ''}{plan.to_compute:,} rows"
    if not_writable:
        return f"{count} are to be computed, but the store cannot be written: {not_writable}"
    if plan.bytes_to_write > free_bytes:
        views = sum(key.view != 0 for key in plan.compute)
        which = f" ({views:,} of them augmented views)" if views else ""
        fewer = "take fewer augment.views, " if views else ""
        return (
            f"{count}{which} need {human_bytes(plan.bytes_to_write)}, but the store's "
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
