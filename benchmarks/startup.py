"""Whole-process wall times of commands that have little to compute.

python -m benchmarks.startup [--quick] [--photos FOLDER] [--count 2000] [--runs 5]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import rounds
from benchmarks.configurations import QUICK_COUNT, configurations
from benchmarks.machine import in_words, machine
from benchmarks.output import console, save
from benchmarks.photos import default_photos, provide, shared_folder
from benchmarks.processes import timed

_FEATCACHE = (sys.executable, "-m", "featcache.cli")
_HEAD = "LogisticRegression"


def commands(photos: Path, folder: Path) -> dict[str, list[str]]:
    """Return the commands by name, after the runs that they start from."""
    base = next(one for one in configurations(shared_folder()) if one.name == "mobilenetv2_160")
    run = folder / "run"
    given = [str(photos), "--cache", str(folder / "cache"), "--run", str(run), "--weights", base.weights]
    timed([*_FEATCACHE, "heads", *given, "--head", _HEAD])
    first = next(path for path in sorted(photos.rglob("*")) if path.is_file())
    return {
        "featcache --help": [*_FEATCACHE, "--help"],
        "featcache info FOLDER": [*_FEATCACHE, "info", *given],
        "featcache features FOLDER, all in the store": [*_FEATCACHE, "features", *given],
        "featcache predict, one photo, scikit-learn head": [
            *_FEATCACHE,
            "predict",
            str(run / "models" / _HEAD),
            str(first),
        ],
        "for comparison: python -c 'import tensorflow'": [sys.executable, "-c", "import tensorflow"],
    }


def measure(by_name: dict[str, list[str]], runs: int) -> dict[str, Any]:
    """Time all commands in turn, `runs` times each."""
    seconds: dict[str, list[float]] = {name: [] for name in by_name}
    for _ in range(runs):
        for name, command in by_name.items():
            seconds[name].append(timed(command)[1])
    return {name: rounds.spread(values) for name, values in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    facts = machine()
    console().print(in_words(facts), highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        wanted = QUICK_COUNT if options.quick else options.count
        count = provide(options.photos or default_photos(), wanted, photos)
        seconds = measure(commands(photos, Path(folder)), 1 if options.quick else options.runs)
    console().print(_table(seconds, count))
    saved = save("startup", {"machine": facts, "photos": count, "seconds": seconds})
    console().print(f"written to {saved}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    add = parser.add_argument
    add("--photos", type=Path, help="a folder of class folders (default: the shared photos, else generated)")
    add("--count", type=int, default=2000, help="photos in the folder")
    add("--runs", type=int, default=5, help="how often each command is timed")
    add("--quick", action="store_true", help="a smoke run: few photos, each command once")
    return parser.parse_args(arguments)


def _table(seconds: dict[str, Any], count: int) -> Table:
    shown = Table(title=f"Whole process, seconds; a folder of {count:,} photos", title_justify="left")
    shown.add_column("command")
    shown.add_column("median", justify="right")
    shown.add_column("range", justify="right")
    for name, spread in seconds.items():
        shown.add_row(name, f"{spread['median']:.2f}", f"{spread['min']:.2f}-{spread['max']:.2f}")
    return shown


if __name__ == "__main__":
    main()
