"""The process whose memory `benchmarks.memory` looks at.

``python -m benchmarks.memory_child prepare|extract PHOTOS CACHE`` prints one JSON line.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.side import print_line

_BASE = {"name": "MobileNetV2", "arguments": {"alpha": 0.35}, "weights": "random", "image_size": 32}


def prepare(cache: Path) -> None:
    """Build and convert the network and keep it in the cache."""
    from featcache.bases.base import Base
    from featcache.recipe import BaseSettings
    from featcache.store.base_store import Store

    print_line({"spec": Base(BaseSettings.model_validate(_BASE), Store(cache)).spec.to_json()})


def extract(photos: Path, cache: Path) -> None:
    """Extract the photos as a user does, and tell the peak of the resident memory."""
    import featcache

    data = {"data": {"train": photos}, "base": _BASE, "cache": cache, "run": cache / "run"}
    recipe = featcache.Recipe.parse(data)
    started = time.perf_counter()
    done = featcache.extract(recipe)
    seconds = time.perf_counter() - started
    facts = {"images": done.rows, "computed": done.computed, "seconds": round(seconds, 3)}
    print_line({**facts, "peak_mb": peak_mb()})


def peak_mb() -> float:
    """Return the highest resident memory of this process so far, in 10**6 bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 2)
    raise RuntimeError("this system does not tell a process's peak memory in /proc/self/status")


if __name__ == "__main__":
    what, photo_folder, cache_folder = sys.argv[1:]
    if what == "prepare":
        prepare(Path(cache_folder))
    else:
        extract(Path(photo_folder), Path(cache_folder))
