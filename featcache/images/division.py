"""Assigns photos to splits by random draws that depend only on their bytes and the seed."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from featcache.images.rows import SPLITS, ImageRow
from featcache.recipe import DataSettings, SplitShares


def uniform(digest: bytes, seed: int, purpose: str) -> float:
    """Return a number in [0, 1) that depends only on the photo's bytes, the seed and the purpose.

    Adding photos moves no other photo, identical photos get identical numbers, a new name or label changes
    nothing, and draws for different purposes are independent.
    """
    drawn = hashlib.sha256(f"{seed}:{purpose}:".encode() + digest).digest()
    return int.from_bytes(drawn[:6], "big") / 2**48  # 48 bits: exact in a float, and never rounded up to 1


def divide(rows: list[ImageRow], given: set[str], settings: DataSettings) -> list[ImageRow]:
    """Draw the splits that are not given; a pure function of each row's digest and the settings."""
    wanted = wanted_splits(given, settings)
    if given == {""}:
        rows = [replace(row, split=_draw(row, settings.split, settings.seed)) for row in rows]
        given = {split for split in SPLITS if getattr(settings.split, split) > 0}
    if "validation" in wanted and "validation" not in given:
        rows = _move(rows, "train", "validation", settings.validation_from_train, settings.seed)
    if "test" in wanted and "test" not in given:
        rows = _move(rows, "validation", "test", settings.test_from_validation, settings.seed)
    return rows


def wanted_splits(given: set[str], settings: DataSettings) -> list[str]:
    """Return the splits that must not be empty, given or drawn."""
    if given == {""}:
        wanted = {split for split in SPLITS if getattr(settings.split, split) > 0}
    else:
        wanted = given | {"train", "validation"}
    if settings.test_from_validation > 0:
        wanted.add("test")
    return [split for split in SPLITS if split in wanted]


def _draw(row: ImageRow, shares: SplitShares, seed: int) -> str:
    drawn = uniform(row.digest, seed, "split")
    # Train comes last: where rounding makes the shares add up to less than 1, it gets the rest.
    if drawn < shares.test:
        return "test"
    return "validation" if drawn < shares.test + shares.validation else "train"


def _move(rows: list[ImageRow], source: str, target: str, share: float, seed: int) -> list[ImageRow]:
    purpose = f"{target} from {source}"
    return [
        replace(row, split=target)
        if row.split == source and uniform(row.digest, seed, purpose) < share
        else row
        for row in rows
    ]
