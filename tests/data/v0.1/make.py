"""Run with featcache 0.1.0 (commit 0c68fef) on the path; the argument is the folder to write."""

import sys
from pathlib import Path

import numpy as np

from featcache.store.feature_file import Contents, Features, SplitRows, pack, write_feature_file
from featcache.store.plan import Key
from featcache.store.shelf import Store

out = Path(sys.argv[1])
BASE = {"feature_shape": [2, 3], "dtype": "float32", "name": "tiny"}
VIEWS = (0, 77)
store = Store(out / "cache").shelf("tiny-1", BASE)
writer = store.writer(4, 1e9)
digests = [bytes([n]) * 32 for n in range(1, 7)]
for n, digest in enumerate(digests, 1):
    keys = [Key(digest, view) for view in VIEWS]
    writer.add(keys, np.array([np.full((2, 3), n), np.full((2, 3), -n)], np.float32))
writer.publish()
splits = {
    "train": SplitRows(
        [f"p/{n}.jpg" for n in range(1, 5)],
        np.array([0, 1, 0, 1]),
        digests[:4],
        VIEWS,
        {"flip": True, "views": 2},
    ),
    "validation": SplitRows(["v/\u00e9.jpg", "v/6.jpg"], np.array([0, 1]), digests[4:]),
}
contents = Contents(("even", "odd"), BASE, {"seed": 0}, [("p/bad.jpg", "empty file")])
write_feature_file(out / "features.h5", splits, writer.locations, store, contents)
with Features(out / "features.h5") as features:
    pack(features, out / "packed.h5")
    print(features)
store.find([Key(digests[0], 0)], print)  # writes verified.json
