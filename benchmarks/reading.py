"""Iterating on many or on large photos: whole processes, with warm and with dropped caches of the disk.

python -m benchmarks.reading [--quick] [--runs 5] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.table import Table

from benchmarks import rounds
from benchmarks.machine import in_words, machine
from benchmarks.output import console, save
from benchmarks.photos import ROOT, default_photos, generate, provide
from benchmarks.processes import ChildError

_FEATCACHE = (sys.executable, "-m", "featcache")
# The smallest base: what is measured is everything but the network.
_BASE = ("--weights", "random", "--set", "base.arguments.alpha=0.35", "--image-size", "32")
_HEAD = ("--head", "LogisticRegression")
_SETTLED_SECONDS = 3.0
_BLOCK_BYTES = 512  # of ru_inblock, see getrusage(2)


@dataclass(frozen=True)
class DataSet:
    """A folder of photos to measure with.

    Attributes
    ----------
    name : str
    count : int
    photo_bytes : int
        Random bytes are appended to JPEG photos, the shared ones or generated, up to this size; 0 makes small
        ones.
    cold : bool
        Measure with dropped caches too, and train a head.
    """

    name: str
    count: int
    photo_bytes: int
    cold: bool

    def write(self, folder: Path) -> int:
        """Write the photos and return the size of all together."""
        if self.photo_bytes:
            provide(default_photos(), self.count, folder)
            for path in folder.rglob("*.jpg"):
                with path.open("ab") as file:
                    file.write(os.urandom(self.photo_bytes - file.tell()))
        else:
            _small_photos(folder, self.count)
        return sum(path.stat().st_size for path in folder.rglob("*.jpg"))


def data_sets(quick: bool) -> list[DataSet]:
    """Return the data sets; a smoke run has fewer photos."""
    few = 20 if quick else 1
    return [
        DataSet("large photos", 1_000 // few, 4_000_000, cold=True),
        DataSet("small photos", 100_000 // few, 0, cold=False),
    ]


def _small_photos(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"class{number % 10}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(path, quality=80)


@dataclass(frozen=True)
class Spent:
    """What a process took.

    Attributes
    ----------
    seconds : float
        Wall time.
    peak_mb : float
        Of resident memory.
    read_bytes : int
        From the disk; what the page cache has is not read.
    """

    seconds: float
    peak_mb: float
    read_bytes: int


def run(command: Sequence[str]) -> Spent:
    """Run a command from the project's folder.

    Raises
    ------
    ChildError
        It failed.
    """
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | dict(os.environ)
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise ChildError(command, process.returncode, said.read().decode(errors="replace"))
    return Spent(seconds, usage.ru_maxrss / 1000, usage.ru_inblock * _BLOCK_BYTES)


def drop_caches() -> bool:
    """Let the system forget what it read from the disk; whether it may be asked to."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    except OSError:
        return False
    return True


def measure(one: DataSet, folder: Path, runs: int) -> dict[str, Any]:
    """Extract a data set for the first time, then run the commands that find everything in the store."""
    photos, cache, results = folder / "photos", folder / "cache", folder / "run"
    size = one.write(photos)
    given = [str(photos), "--cache", str(cache), "--run", str(results), *_BASE]
    features, heads = [*_FEATCACHE, "features", *given], [*_FEATCACHE, "heads", *given, *_HEAD]
    _extract_few(folder, cache, first=10**6)  # converts the network, which happens once on a machine
    time.sleep(_SETTLED_SECONDS)  # of photos that have only just changed no digest is kept
    libraries = _extract_few(folder, cache, first=2 * 10**6).read_bytes
    may_drop = drop_caches()
    first = run(features)
    read = first.read_bytes / size if may_drop else None
    found: dict[str, Any] = {"photos": one.count, "bytes": size, "read_per_byte": read}
    found["library_bytes"] = libraries if may_drop else None
    found["first extraction"] = _spread([first])
    found["features, warm"] = _spread([run(features) for _ in range(runs)])
    if one.cold:
        found["heads, warm"] = _spread([run(heads) for _ in range(runs)])
        if may_drop:
            found["features, cold"] = _spread([run(features) for _ in range(runs) if drop_caches()])
    return found


def _extract_few(folder: Path, cache: Path, first: int) -> Spent:
    """Extract a few other photos with dropped caches: what is read from the disk are the libraries."""
    few = folder / "few"
    generate(few, 40, (64, 48), first=first)
    drop_caches()
    results = folder / f"few-{first}"
    spent = run([*_FEATCACHE, "features", str(few), "--cache", str(cache), "--run", str(results), *_BASE])
    shutil.rmtree(few)
    return spent


def _spread(spent: Sequence[Spent]) -> dict[str, Any]:
    return {
        "seconds": rounds.spread([one.seconds for one in spent]),
        "peak_mb": round(max(one.peak_mb for one in spent), 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: few photos, each command once")
    parser.add_argument("--runs", type=int, default=5, help="how often each command is timed")
    parser.add_argument("--folder", type=Path, help="where the photos go, 4.4 GB (default: a temporary one)")
    options = parser.parse_args(arguments)
    facts = machine()
    console().print(in_words(facts), highlight=False)
    found = {}
    for one in data_sets(options.quick):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found[one.name] = measure(one, Path(folder), 1 if options.quick else options.runs)
        console().print(_table(one.name, found[one.name]))
    console().print(f"written to {save('reading', {'machine': facts, 'sets': found})}")


def _table(name: str, found: dict[str, Any]) -> Table:
    size = f"{found['photos']:,} {name} of {found['bytes'] / found['photos'] / 1e6:.3g} MB"
    shown = Table(title=f"Whole process; {size}", title_justify="left")
    for heading in ("command", "median, s", "range, s", "peak, MB"):
        shown.add_column(heading, justify="left" if heading == "command" else "right")
    for command, one in found.items():
        if isinstance(one, dict):
            seconds = one["seconds"]
            span = f"{seconds['min']:.2f}-{seconds['max']:.2f}"
            shown.add_row(command, f"{seconds['median']:.2f}", span, f"{one['peak_mb']:.0f}")
    read = found["read_per_byte"]
    shown.caption = "bytes read from disk: not measured"
    if read is not None:
        without = read - found["library_bytes"] / found["bytes"]
        shown.caption = f"{read:.3f} bytes read per byte, {without:.3f} without the libraries"
    return shown


if __name__ == "__main__":
    main()
