"""Assigns photos to splits by random draws that depend only on their bytes, or their group, and the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence

from featcache.images.groups import draw_key
from featcache.images.rows import SPLITS, ImageRow
from featcache.recipe import DataSettings, SplitShares


def uniform(key: bytes, seed: int, purpose: str) -> float:
    """Return a number in [0, 1) that depends only on the photo's key, the seed and the purpose.

    The key is the photo's digest or its group's name, see `featcache.images.groups.draw_key`.

    Adding photos moves no other photo, identical photos get identical numbers, a new name or label changes
    nothing, and draws for different purposes are independent.
    """
    drawn = hashlib.sha256(f"{seed}:{purpose}:".encode() + key).digest()
    return int.from_bytes(drawn[:6], "big") / 2**48  # 48 bits: exact in a float, and never rounded up to 1


def divide(rows: list[ImageRow], given: set[str], settings: DataSettings) -> list[ImageRow]:
    """Draw the splits that are not given; a pure function of each row's key and the settings.

    Only a class that would have no photo in train depends on its other photos, see `keep_in_train`.
    """
    draw = drawing(given, settings)
    rows = [_in_split(row, draw(row.split, _key(row))) for row in rows]
    return keep_in_train(rows, drawn_splits(given, settings), settings.seed)


def drawing(given: set[str], settings: DataSettings) -> Callable[[str, bytes], str]:
    """Return the function that draws the split of one photo, from the split that is given and its key.

    Parameters
    ----------
    given : set of str
        The splits that photos have by their folders or manifest; ``{""}`` if they are not divided.
    settings : DataSettings
    """
    shares, seed = settings.split, settings.seed
    wanted = wanted_splits(given, settings)
    known = {one for one in SPLITS if getattr(shares, one) > 0} if given == {""} else given
    validation = "validation" in wanted and "validation" not in known
    test = "test" in wanted and "test" not in known

    def draw(split: str, key: bytes) -> str:
        if given == {""}:
            split = _draw(key, shares, seed)
        if validation and split == "train":
            drawn = uniform(key, seed, "validation from train")
            split = "validation" if drawn < settings.validation_from_train else split
        if test and split == "validation":
            drawn = uniform(key, seed, "test from validation")
            split = "test" if drawn < settings.test_from_validation else split
        return split

    return draw


def wanted_splits(given: set[str], settings: DataSettings) -> list[str]:
    """Return the splits that the photos are divided into, given or drawn."""
    if given == {""}:
        wanted = {split for split in SPLITS if getattr(settings.split, split) > 0}
    else:
        wanted = given | {"train", "validation"}
    if settings.test_from_validation > 0:
        wanted.add("test")
    return [split for split in SPLITS if split in wanted]


def used_splits(given: set[str], settings: DataSettings) -> list[str]:
    """Return the splits that must not be empty: nothing is asked of validation where folds take its place."""
    unused = () if settings.folds is None else ("validation",)
    return [split for split in wanted_splits(given, settings) if split not in unused]


def learned_splits(settings: DataSettings) -> tuple[str, ...]:
    """Return the splits that heads are trained on: train, with folds also validation."""
    return ("train",) if settings.folds is None else ("train", "validation")


def drawn_splits(given: set[str], settings: DataSettings) -> tuple[str, ...]:
    """Return the splits beside train whose photos are drawn from those that could also be in train."""
    wanted = [split for split in wanted_splits(given, settings) if split != "train"]
    if given != {""} and "validation" in given:
        return ()  # a test split is drawn from the given validation
    return tuple(split for split in wanted if split not in given)


def keep_in_train(
    rows: list[ImageRow], drawn: Collection[str], seed: int, broken: Collection[bytes] = ()
) -> list[ImageRow]:
    """Give train a photo of every class that the draws left without one: its photo with the lowest draw.

    All copies of the photo, and all photos of its group, move with it. A photo that is moved stays there when
    photos are added, unless the class gets another photo in train.

    Parameters
    ----------
    rows : list of ImageRow
    drawn : collection of str
        Splits that photos may be moved from, see `drawn_splits`.
    seed : int
    broken : collection of bytes
        Digests of photos that cannot be used.
    """
    sound = [row for row in rows if row.digest not in broken]
    usable = {row.label for row in sound if row.split == "train"}
    candidates = [row for row in sound if row.split in drawn and row.label not in usable]
    if not candidates:
        return rows
    lowest = _lowest_of_each_class(candidates, seed)
    return [_in_split(row, "train") if row.split in drawn and _key(row) in lowest else row for row in rows]


def _lowest_of_each_class(rows: Sequence[ImageRow], seed: int) -> set[bytes]:
    lowest: dict[str, tuple[float, bytes]] = {}
    for row in rows:
        draw = (uniform(_key(row), seed, "train"), _key(row))
        lowest[row.label] = min(draw, lowest.get(row.label, draw))
    return {key for _, key in lowest.values()}


def _key(row: ImageRow) -> bytes:
    return draw_key(row.group, row.digest)


def _in_split(row: ImageRow, split: str) -> ImageRow:
    # `replace` takes five times as long
    return ImageRow(row.path, row.label, split, row.digest, row.group, row.weight)


def _draw(key: bytes, shares: SplitShares, seed: int) -> str:
    drawn = uniform(key, seed, "split")
    # Train comes last: where rounding makes the shares add up to less than 1, it gets the rest.
    if drawn < shares.test:
        return "test"
    return "validation" if drawn < shares.test + shares.validation else "train"
