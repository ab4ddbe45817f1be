"""Assigns photos to splits by random draws that depend only on their bytes and the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

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
    draw = drawing(given, settings)
    return [ImageRow(row.path, row.label, draw(row.split, row.digest), row.digest) for row in rows]


def drawing(given: set[str], settings: DataSettings) -> Callable[[str, bytes], str]:
    """Return the function that draws the split of one photo, from the split that is given and its digest.

    Parameters
    ----------
    given : set of str
        The splits that photos have by their folders or manifest; ``{""}`` if they are not divided.
    settings : DataSettings
    """
    wanted, shares, seed = wanted_splits(given, settings), settings.split, settings.seed
    known = {one for one in SPLITS if getattr(shares, one) > 0} if given == {""} else given
    validation = "validation" in wanted and "validation" not in known
    test = "test" in wanted and "test" not in known

    def draw(split: str, digest: bytes) -> str:
        if given == {""}:
            split = _draw(digest, shares, seed)
        if validation and split == "train":
            drawn = uniform(digest, seed, "validation from train")
            split = "validation" if drawn < settings.validation_from_train else split
        if test and split == "validation":
            drawn = uniform(digest, seed, "test from validation")
            split = "test" if drawn < settings.test_from_validation else split
        return split

    return draw


def wanted_splits(given: set[str], settings: DataSettings) -> list[str]:
    """Return the splits that must not be empty, given or drawn."""
    if given == {""}:
        wanted = {split for split in SPLITS if getattr(settings.split, split) > 0}
    else:
        wanted = given | {"train", "validation"}
    if settings.test_from_validation > 0:
        wanted.add("test")
    return [split for split in SPLITS if split in wanted]


def _draw(digest: bytes, shares: SplitShares, seed: int) -> str:
    drawn = uniform(digest, seed, "split")
    # Train comes last: where rounding makes the shares add up to less than 1, it gets the rest.
    if drawn < shares.test:
        return "test"
    return "validation" if drawn < shares.test + shares.validation else "train"
