"""The processes of `benchmarks.streaming`: one writes a feature file, the other trains on it.

``python -m benchmarks.streaming_child write FILE ROWS`` or ``train FILE`` prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.memory_child import peak_mb
from benchmarks.side import print_line

_WIDTH, _BLOCK = 1280, 10_000
_EPOCHS = 2


def write(path: Path, rows: int) -> None:
    """Write a packed feature file of random features whose mean tells the class."""
    import h5py

    from featcache.store.format import DIGEST, FEATURES, LABELS, PATH, SKIPPED
    from featcache.store.shards import rows_per_block

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, rows)
    direction = rng.normal(size=_WIDTH).astype(np.float32) / np.sqrt(_WIDTH)
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file.attrs["format"] = 1  # later formats are sealed
        file.attrs["classes"] = np.array(["a", "b"], dtype=text)
        file.attrs["base"] = json.dumps({"feature_shape": [_WIDTH], "dtype": "float16"})
        file.attrs["recipe"] = json.dumps({})
        skipped = file.create_group(SKIPPED)
        for name in (PATH, "reason"):
            skipped.create_dataset(name, data=[], dtype=text)
        group = file.create_group("train")
        group.create_dataset(LABELS, data=labels)
        group.create_dataset(PATH, data=[str(number) for number in range(rows)], dtype=text)
        group.create_dataset(DIGEST, data=rng.integers(0, 256, (rows, 32), np.uint8))
        shape = (rows, _WIDTH)
        chunks = (rows_per_block(shape, np.float16), _WIDTH)
        features = group.create_dataset(FEATURES, shape, np.float16, chunks=chunks, fletcher32=True)
        for start in range(0, rows, _BLOCK):
            part = labels[start : start + _BLOCK, None]
            noise = rng.standard_normal((len(part), _WIDTH), np.float32)
            features[start : start + len(part)] = noise + (2 * part - 1) * direction
    print_line({"rows": rows})


def train(path: Path) -> None:
    """Train a linear head and tell its speed, its accuracy and the peak of the resident memory."""
    import featcache
    from featcache.heads.dense.training import tensorflow_loaded

    tensorflow_loaded()
    with featcache.Features(path) as features:
        split = features["train"]
        head = featcache.DenseHead(epochs=_EPOCHS, batch_size=256, random_state=0)
        started = time.perf_counter()
        head.fit(split)
        seconds = time.perf_counter() - started
    accuracy = head.history_["accuracy"][-1]
    print_line({"epochs": _EPOCHS, "seconds": seconds, "accuracy": accuracy, "peak_mb": peak_mb()})


if __name__ == "__main__":
    what, file, *more = sys.argv[1:]
    if what == "write":
        write(Path(file), int(more[0]))
    else:
        train(Path(file))
