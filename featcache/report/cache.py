"""What the store holds and what is removed from it, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table

from featcache.store.cache import CachedBase, Contents, Removal
from featcache.store.plan import human_bytes


def contents_table(contents: Contents) -> Table:
    """Return one row per base, the last used first, and one for the index of the photos' digests."""
    table = bases_table(contents.bases, f"the store {contents.folder}, {human_bytes(contents.bytes)}")
    if contents.index_bytes:
        table.add_row("index of photos", "", "", "", human_bytes(contents.index_bytes), "")
    return table


def bases_table(bases: Sequence[CachedBase], title: str) -> Table:
    """Return one row per base with its photos, rows, size and last use."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("base", overflow="fold")
    for name in ("image size", "photos", "rows", "size", "last use"):
        table.add_column(name, justify="right")
    for base in bases:
        size = "–" if base.image_size is None else " × ".join(map(str, base.image_size))
        used = datetime.fromtimestamp(base.last_used).strftime("%Y-%m-%d %H:%M")
        table.add_row(base.name, size, f"{base.photos:,}", f"{base.rows:,}", human_bytes(base.bytes), used)
    return table


def unreadable_sentences(contents: Contents) -> list[str]:
    """Return a sentence for every base with shards that cannot be read."""
    return [
        f"{base.name}: {base.unreadable:,} shards cannot be read; their rows are not counted"
        for base in contents.bases
        if base.unreadable
    ]


def preview_sentence(chosen: Sequence[CachedBase]) -> str:
    """Say what would be removed."""
    if not chosen:
        return "Nothing to remove."
    size = human_bytes(sum(base.bytes for base in chosen))
    return f"{_counted(len(chosen))} with {size} would be removed; --yes removes them."


def removal_sentences(removal: Removal) -> list[str]:
    """Say what was removed and what stays."""
    sentences = [f"Removed {_counted(len(removal.removed))}, {human_bytes(removal.bytes)}."]
    sentences += [f"{base.name} is in use and stays." for base in removal.in_use]
    sentences += [f"{path} is not a file of the store and stays." for path in removal.left]
    return sentences


def _counted(bases: int) -> str:
    return "1 base" if bases == 1 else f"{bases:,} bases"
