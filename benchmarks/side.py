"""How every side is timed: built, warmed up, then run once over the photos.

Only the standard library is used here, as in `benchmarks.configurations`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Extracted:
    """What one extraction gave.

    Attributes
    ----------
    images : int
    building : float
        Seconds of it that went into building or loading the network; they are taken off.
    details : dict
        Whatever else is worth keeping.
    """

    images: int
    building: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)


# Runs a folder of class folders through a network that is already built.
Extract = Callable[[Path], Extracted]


def measure(build: Callable[[], Extract], warm_up: Path, photos: Path) -> dict[str, Any]:
    """Return seconds and images of one extraction."""
    extract = build()
    extract(warm_up)
    started = time.perf_counter()
    done = extract(photos)
    seconds = time.perf_counter() - started - done.building
    return {"images": done.images, "seconds": round(seconds, 4), **done.details}


def print_line(result: dict[str, Any]) -> None:
    """Print a result as the process's last line."""
    print(json.dumps(result), flush=True)
