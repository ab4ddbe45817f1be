"""One photo a call of a loaded model, beside what decoding and inference of that photo cost alone.

python -m benchmarks.serving [--quick] [--photos FOLDER] [--count 200] [--rounds 5] [--threads 8]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import rounds
from benchmarks.configurations import QUICK_COUNT, configurations
from benchmarks.machine import in_words, machine
from benchmarks.output import console, save
from benchmarks.photos import default_photos, provide, shared_folder
from featcache.images.decode import decode
from featcache.model import Model
from featcache.recipe import Recipe
from featcache.training import train_heads

TARGET = 1.5
_CONFIGURATION = "mobilenetv2_160"
_HEAD = "LogisticRegression"


def trained(photos: Path, folder: Path) -> Model:
    """Train one head on MobileNetV2 at 160 px and load its model as a program does."""
    base = next(one for one in configurations(shared_folder()) if one.name == _CONFIGURATION)
    recipe = Recipe.parse(
        {
            "data": {"root": str(photos)},
            "base": {"name": base.network, "weights": base.weights, "image_size": base.image_size},
            "heads": [{"type": _HEAD}],
            "cache": str(folder / "cache"),
            "run": str(folder / "run"),
        }
    )
    train_heads(recipe)
    return Model.load(folder / "run")


def ways(model: Model) -> dict[str, Callable[[Path], object]]:
    """Return what is done with one photo, by name."""
    base, how = model.base(1), model.settings

    def alone(path: Path) -> object:
        pixels = decode(path.read_bytes(), how.image_size, how.resize, how.interpolation)
        return base.features(pixels[np.newaxis])

    return {
        "decoding and inference alone": alone,
        "predict, a path": lambda path: next(model.predict(path)),
        "predict, bytes": lambda path: next(model.predict(path.read_bytes())),
    }


def milliseconds(model: Model, paths: Sequence[Path], repeats: int) -> dict[str, list[float]]:
    """Time every photo in every way in turn: all see the same state of the machine."""
    by_name = ways(model)
    found: dict[str, list[float]] = {name: [] for name in by_name}
    for work in by_name.values():
        work(paths[0])
    for path in itertools.chain.from_iterable(itertools.repeat(paths, repeats)):
        for name, work in by_name.items():
            started = time.perf_counter()
            work(path)
            found[name].append(1000 * (time.perf_counter() - started))
    return found


def threads_per_second(model: Model, paths: Sequence[Path], threads: int) -> dict[str, float]:
    """Return photos per second from one thread and from several, one photo a call."""
    found = {}
    for count in (1, threads):
        started = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda path: next(model.predict(path)), paths))
        found[str(count)] = len(paths) / (time.perf_counter() - started)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    facts = machine()
    console().print(in_words(facts), highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        provide(options.photos or default_photos(), QUICK_COUNT if options.quick else options.count, photos)
        paths = sorted(path for path in photos.rglob("*") if path.is_file())
        model = trained(photos, Path(folder))
        times = milliseconds(model, paths, 1 if options.quick else options.rounds)
        per_second = threads_per_second(model, paths, options.threads)
    result = summary(times) | {"photos": len(paths), "images_per_second": per_second}
    console().print(_table(result))
    console().print(f"written to {save('serving', {'machine': facts, **result})}")


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Return medians and ranges, and how many times the first way's median the others take."""
    spreads = {name: rounds.spread(values) for name, values in times.items()}
    first, *others = spreads
    ratios = {name: spreads[name]["median"] / spreads[first]["median"] for name in others}
    return {"milliseconds": spreads, "ratios": ratios, "target": TARGET}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    add = parser.add_argument
    add("--photos", type=Path, help="a folder of class folders (default: the shared photos, else generated)")
    add("--count", type=int, default=200, help="photos to train on and to ask about")
    add("--rounds", type=int, default=5, help="how often each photo is asked about")
    add("--threads", type=int, default=8, help="threads that ask at once")
    add("--quick", action="store_true", help="a smoke run: few photos, each once")
    return parser.parse_args(arguments)


def _table(result: dict[str, Any]) -> Table:
    shown = Table(title="One photo a call, milliseconds; MobileNetV2 160 px", title_justify="left")
    shown.add_column("what")
    for name in ("median", "range", f"ratio (target {TARGET:g})"):
        shown.add_column(name, justify="right")
    for name, spread in result["milliseconds"].items():
        ratio = result["ratios"].get(name)
        shown.add_row(
            name,
            f"{spread['median']:.2f}",
            f"{spread['min']:.2f}-{spread['max']:.2f}",
            "" if ratio is None else f"{ratio:.2f}",
        )
    for threads, rate in result["images_per_second"].items():
        shown.add_row(f"predict from {threads} threads", f"{rate:.0f} photos/s", "", "")
    return shown


if __name__ == "__main__":
    main()
