"""Resident memory of extracting 2,000 and 20,000 photos, each in a fresh process: it should not grow.

python -m benchmarks.memory [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.machine import in_words, machine
from benchmarks.output import console, save
from benchmarks.photos import generate
from benchmarks.processes import child

COUNTS = (2_000, 20_000)
QUICK_COUNTS = (64, 640)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: few photos")
    counts = QUICK_COUNTS if parser.parse_args(arguments).quick else COUNTS
    facts = machine()
    console().print(in_words(facts), highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        runs = [_measure(count, Path(folder)) for count in counts]
    ratio = runs[-1]["peak_mb"] / runs[0]["peak_mb"]
    console().print(
        _table(runs), f"{ratio:.3f} times the memory for {counts[-1] // counts[0]} times the photos"
    )
    saved = save("memory", {"machine": facts, "runs": runs, "ratio": round(ratio, 4)})
    console().print(f"written to {saved}")


def _measure(count: int, folder: Path) -> dict[str, Any]:
    photos, cache = folder / f"photos-{count}", folder / f"cache-{count}"
    generate(photos, count, (160, 120))
    # apart from the extraction: converting the network once would hide what the photos take
    child("memory_child", "prepare", photos, cache)
    return child("memory_child", "extract", photos, cache)


def _table(runs: Sequence[dict[str, Any]]) -> Table:
    shown = Table(title="Peak of resident memory, MobileNetV2 alpha 0.35 at 32 px", title_justify="left")
    for heading in ("photos", "peak, MB", "images/s"):
        shown.add_column(heading, justify="right")
    for run in runs:
        speed = run["images"] / run["seconds"]
        shown.add_row(f"{run['images']:,}", f"{run['peak_mb']:.1f}", f"{speed:,.0f}")
    return shown


if __name__ == "__main__":
    main()
