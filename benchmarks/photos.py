"""Photos to measure with: a folder's, or generated ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]

_JPEG = b"\xff\xd8\xff"
_CLASSES = ("cats", "dogs")


def shared_folder() -> Path:
    return Path(os.environ.get("FEATCACHE_SHARED") or ROOT.parent / "shared").absolute()


def default_photos() -> Path | None:
    """Return the shared folder's photos, or None where there is no such folder."""
    folder = shared_folder() / "data" / "cats_dogs" / "train"
    return folder if folder.is_dir() else None


def provide(source: Path | None, count: int, folder: Path) -> int:
    """Put `count` JPEG photos into a new folder with class folders; return how many there are.

    Parameters
    ----------
    source : Path or None
        A folder of class folders; without it, photos of 500×375 are generated.
    count : int
        A source that has fewer distinct JPEG photos gives what it has.
    folder : Path
    """
    if source is None:
        return generate(folder, count, (500, 375))
    copied = 0
    for path, data in islice(_distinct_jpegs(source), count):
        target = folder / path.parent.relative_to(source) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        copied += 1
    return copied


def _distinct_jpegs(source: Path) -> Iterator[tuple[Path, bytes]]:
    """Give the photos of all classes in turn, each content once: featcache would compute it once only."""
    seen = set()
    for path in _in_turn(source):
        data = path.read_bytes()
        digest = hashlib.sha256(data).digest()
        if data.startswith(_JPEG) and digest not in seen:
            seen.add(digest)
            yield path, data


def _in_turn(source: Path) -> list[Path]:
    classes = [sorted(folder.iterdir()) for folder in sorted(source.iterdir()) if folder.is_dir()]
    every = chain.from_iterable(zip_longest(*classes))
    return [path for path in every if path is not None and path.is_file()]


def generate(folder: Path, count: int, size: tuple[int, int], first: int = 0) -> int:
    """Write `count` different photos of a (width, height) in two classes; `first` is the first one's seed."""
    for name in _CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)

    def write(seed: int) -> None:
        _photo(seed, size).save(folder / _CLASSES[seed % 2] / f"{seed:06}.jpg", quality=82)

    with ThreadPoolExecutor() as pool:
        return len(list(pool.map(write, range(first, first + count))))


def _photo(seed: int, size: tuple[int, int]) -> Image.Image:
    """Draw coarse shapes with some grain, which costs a decoder about what a photo of that size does."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), np.uint8))
    shapes = coarse.resize(size, Image.Resampling.BICUBIC)
    fine = generator.integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
    grain = Image.fromarray(fine).resize(size, Image.Resampling.BILINEAR)
    return Image.blend(shapes, grain, 0.15)
