"""The store's names on disk and its format number.

The number is raised when a file written by this version could be misread by an older one, or the other
way round. To raise it: add one to `FORMAT`, teach the readers what the older number means, put one shard
and one packed feature file written by the last release of the old number into ``tests/store/old`` and
prove there that they still load. A number that is higher than `FORMAT` is refused, never guessed at.
"""

from __future__ import annotations

from typing import Any

from featcache.errors import FormatError

FORMAT = 1

# in a shard
FEATURES, DIGEST, VIEW = "features", "digest", "view"
# beside them in each group of a feature file
LABELS, PATH, SHARD, ROW = "labels", "path", "shard", "row"
# in a split whose photos have several views, a group with FEATURES, SHARD and ROW of all of them, and VIEW
VIEWS, AUGMENT = "views", "augment"
# groups of a feature file that are no splits
SHARDS, SKIPPED = "shards", "skipped"
# a shard's folder below the base's, and what the base's folder tells about the base
SHARD_FOLDER, BASE_FILE = "shards", "base.json"

DIGEST_BYTES = 32


def check_format(number: Any, name: str) -> None:
    """Refuse a file whose format number is missing or newer than this version's.

    Raises
    ------
    FormatError
        With the number found and what to do.
    """
    if number is None:
        raise FormatError(f"{name} is no file of featcache; `featcache features RECIPE` writes one")
    try:
        number = int(number)
    except (TypeError, ValueError, OverflowError):
        raise FormatError(f"{name} is damaged: its format is {number!r}, which is no number") from None
    if number > FORMAT:
        raise FormatError(
            f"{name} has format {int(number)}; this version of featcache reads formats up to {FORMAT}: "
            "upgrade featcache, or extract again with this version"
        )
