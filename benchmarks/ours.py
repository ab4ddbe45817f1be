"""featcache's side, and the two ceilings that its parts set.

``python -m benchmarks.ours WHAT CONFIGURATION CACHE WARM_UP PHOTOS`` prints one JSON line; WHAT is

- ``prepare``: build and convert the network and keep it in CACHE, as the first run on a machine does;
- ``extract``: `featcache.extract` of photos that CACHE does not have;
- ``decode``: read and decode the photos on all cores, nothing else;
- ``inference``: the network on ready pixels on all cores, nothing else.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.configurations import Configuration
from benchmarks.side import Extract, Extracted, measure, print_line
from featcache.bases.base import Base
from featcache.extraction.stage import extract as featcache_extract
from featcache.images.decode import decode
from featcache.processor import cores
from featcache.recipe import BaseSettings, Recipe
from featcache.store.base_store import Store

_READY_BATCHES = 8


def settings(configuration: Configuration) -> BaseSettings:
    return BaseSettings(
        name=configuration.network,
        weights=configuration.weights,
        image_size=(configuration.image_size, configuration.image_size),
        preprocessing=configuration.preprocessing,
        interpolation=configuration.interpolation,
        pooling=configuration.pooling,
        precision=configuration.precision,
    )


def prepare(configuration: Configuration, cache: Path) -> Extract:
    """Nothing of the photos is used: the process's seconds are what is wanted."""

    def build(_: Path) -> Extracted:
        spec = Base(settings(configuration), Store(cache)).spec
        return Extracted(0, details={"precision": spec.precision, "feature_shape": spec.feature_shape})

    return build


def extract(configuration: Configuration, cache: Path) -> Extract:
    """`featcache.extract` as a user calls it: hashing, shards and feature file included."""

    def run(folder: Path) -> Extracted:
        with tempfile.TemporaryDirectory() as run_folder:
            base = settings(configuration).model_dump()
            recipe = Recipe.parse(
                {"data": {"train": folder}, "base": base, "cache": cache, "run": run_folder}
            )
            done = featcache_extract(recipe)
        if done.computed != done.rows:
            raise RuntimeError(f"{done.reused} of {done.rows} rows were in the cache already")
        details = {"profile": done.profile.to_json()}
        return Extracted(done.rows, done.profile.preparing, details)

    return run


def decode_alone(configuration: Configuration, _: Path) -> Extract:
    """Read and decode on all cores, in batches as the extraction does."""
    base = settings(configuration)

    def run(folder: Path) -> Extracted:
        with ThreadPoolExecutor(cores()) as pool:
            counts = pool.map(lambda batch: len(_decoded(batch, base)), _batches(folder, base.batch_size))
            return Extracted(sum(counts))

    return run


def inference_alone(configuration: Configuration, cache: Path) -> Extract:
    """Call the engine from as many threads as the extraction does, and for as many batches."""
    base = Base(settings(configuration), Store(cache))
    base.prepare()

    def run(folder: Path) -> Extracted:
        started = time.perf_counter()
        paths = _batches(folder, base.settings.batch_size)
        ready = [_decoded(batch, base.settings) for batch in paths[:_READY_BATCHES]]
        decoding = time.perf_counter() - started
        pixels = itertools.islice(itertools.cycle(ready), len(paths))
        with ThreadPoolExecutor(base.parallel) as pool:
            return Extracted(sum(pool.map(lambda batch: len(base.engine(batch)), pixels)), decoding)

    return run


def _decoded(paths: Sequence[Path], base: BaseSettings) -> NDArray[np.uint8]:
    pixels = [decode(path.read_bytes(), base.image_size, base.resize, base.interpolation) for path in paths]
    return np.stack(pixels)


def _batches(folder: Path, size: int) -> list[list[Path]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [paths[start : start + size] for start in range(0, len(paths), size)]


WORK: dict[str, Callable[[Configuration, Path], Extract]] = {
    "prepare": prepare,
    "extract": extract,
    "decode": decode_alone,
    "inference": inference_alone,
}


def main() -> None:
    what, text, cache, warm_up, photos = sys.argv[1:]
    build = partial(WORK[what], Configuration.from_json(text), Path(cache))
    print_line(measure(build, Path(warm_up), Path(photos)))


if __name__ == "__main__":
    main()
