"""Format numbers of the files that featcache writes, and the names in HDF5 files.

A number is raised when an older version could misread a file of this version, or the other way round. To
raise one:

1. Add one to the number here.
2. Teach the reader of that kind of file what the older number means.
3. Put a small file written by the last release into ``tests/data/v<release>`` and prove in a test that it
   still loads.

A number higher than the one here is rejected: the file was written by a newer version.

===============  ======  =====================================================================
kind             number  changes
===============  ======  =====================================================================
shard            1
feature file     2       a SHA-256 in the user block covers the file; paths have a fixed length;
                         groups and weights of photos, where there are any
model            1
packed model     1       a model's files and its converted base in one zip archive
export           1
===============  ======  =====================================================================
"""

from __future__ import annotations

from typing import Any

from featcache.errors import FormatError

SHARD_FORMAT = 1
FEATURE_FORMAT = 2
MODEL_FORMAT = 1
PACKED_MODEL_FORMAT = 1
EXPORT_FORMAT = 1

# in a shard
FEATURES, DIGEST, VIEW = "features", "digest", "view"
# beside them in each group of a feature file
LABELS, PATH, SHARD, ROW = "labels", "path", "shard", "row"
# the same, where photos have groups or weights; the names of the groups are a member of the file
GROUP, WEIGHT, GROUPS = "group", "weight", "groups"
# in a shard and in a packed file: the SHA-256 of every block of rows of FEATURES
BLOCK_HASHES, ROWS_PER_BLOCK = "features_sha256", "rows_per_block"
# in a shard: the SHA-256 of DIGEST and VIEW
KEYS_HASH = "keys_sha256"
# in a shard, not in those of version 0.1: facts of the photos, their names, and the SHA-256 of both
FACTS, FACT_NAMES, FACTS_HASH = "facts", "facts", "facts_sha256"
# in a split whose photos have several views, a group with FEATURES, SHARD and ROW of all of them, and VIEW
VIEW_GROUP, AUGMENT = "views", "augment"
# members of a feature file that are not splits
SHARDS, SKIPPED, REASON, FINDINGS = "shards", "skipped", "reason", "findings"
# in the folder of a base
SHARD_FOLDER, BASE_FILE, VERIFIED_FILE = "shards", "base.json", "verified.json"
# in the store: the index of the photos' digests; SQLite keeps journals beside it
INDEX_FILE = "photos.sqlite"

DIGEST_BYTES = 32


def check_format(number: Any, newest: int, name: str) -> int:
    """Return a file's format number if this version reads it.

    Parameters
    ----------
    number : int
        As it stands in the file; None where it is missing.
    newest : int
        The number of this version: `SHARD_FORMAT`, `FEATURE_FORMAT`, `MODEL_FORMAT`, `PACKED_MODEL_FORMAT` or
        `EXPORT_FORMAT`.
    name : str
        The file, for the message.

    Raises
    ------
    FormatError
        The number is missing, is not a format number, or is newer than this version's.
    """
    if number is None:
        raise FormatError(f"{name} is not a file of featcache; `featcache features RECIPE` writes one")
    try:
        found = int(number)
    except (TypeError, ValueError, OverflowError):
        found = 0
    if found < 1:
        raise FormatError(f"{name} has the invalid format number {number!r}; valid are 1 to {newest}")
    if found > newest:
        raise FormatError(
            f"{name} has format {found}; this version of featcache reads formats up to {newest}: "
            "upgrade featcache, or extract again with this version"
        )
    return found
