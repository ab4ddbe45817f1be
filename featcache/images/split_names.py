"""Reads names of splits: what folders and manifests call train, validation and test."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

DOCUMENTED_NAMES = frozenset({"train", "training", "validation", "val", "valid", "test"})
"""Names that need no explanation, in any case; reading any other name as a split is said."""

_SPLIT_WORDS = {
    "train": ("train", "training", "trainset", "trainingset", "traindata", "trn"),
    "validation": ("validation", "val", "valid", "validate", "dev", "eval", "evaluation", "valset", "devset"),
    "test": ("test", "testing", "testset", "testdata", "tst", "holdout"),
}
_SPLIT_OF = {word: split for split, words in _SPLIT_WORDS.items() for word in words}

# Words beside a split's name that say nothing of the photos: train_set, test images, TrainData.
_FILLER = frozenset(
    {"set", "data", "dataset", "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"}
    | {"folder", "dir", "split"}
)


@dataclass(frozen=True, slots=True)
class SplitName:
    """A name with a split's word in it.

    Attributes
    ----------
    split : str
        "train", "validation" or "test".
    rest : tuple of str
        The other words, without numbers and words like "set": ("seg",) for ``seg_train``. Empty where the
        name is that of a split and nothing else.
    """

    split: str
    rest: tuple[str, ...]


def read_split_name(name: str) -> SplitName | None:
    """Return the split that a name has a word of; None for no split or for two (``train_val``).

    Words are separated by anything that is not a letter, and by a capital letter after a small one.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W\d_]+", spaced.casefold())
    splits = {_SPLIT_OF[word] for word in words if word in _SPLIT_OF}
    if len(splits) != 1:
        return None
    return SplitName(splits.pop(), tuple(word for word in words if word not in _SPLIT_OF.keys() | _FILLER))


def plain_split(name: str) -> str | None:
    """Return the split of a name that is nothing but a split's: ``Training_set``, not ``seg_train``."""
    read = read_split_name(name)
    return read.split if read is not None and not read.rest else None


def named_as_splits(names: Iterable[str]) -> list[str]:
    """Return names that differ only in the split that they name, such as ``cats_train`` and ``cats_test``."""
    alike: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for name in names:
        read = read_split_name(name)
        if read is not None:
            alike[read.rest].append((name, read.split))
    for group in alike.values():
        if len({split for _, split in group}) > 1:
            return [name for name, _ in group]
    return []
