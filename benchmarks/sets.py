"""Sets of labelled features to compare heads on: photos of the shared folder, of solar cells and of digits.

    python -m benchmarks.sets --folder SETS

writes one ``.npz`` file per set; photos that are not files already are written below ``SETS/photos``.
The features are those of featcache: MobileNetV2 at 160 px, average pooling, f32. A photo that is twice in a
set is taken once, so that it cannot be in train and in test.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.photos import shared_folder
from featcache.extraction.stage import extract
from featcache.recipe import Recipe

WEIGHTS = "mobilenet_v2_1.0_224_notop.weights.h5"

_SIZE = 160
_DIGIT_SIZE = 64
_OF_EACH_KIND = 400


@dataclass(frozen=True)
class Photo:
    """A photo, its class, how sure its label is, and what it is of where that is not the class."""

    path: Path
    label: str
    weight: float = 1.0
    kind: str = ""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of a set of photos.

    Attributes
    ----------
    name : str
    X : array of float32, shape (n, 1280)
    y : array of int64, shape (n,)
    classes : tuple of str
    weights : array of float64, shape (n,)
        Of the photos; ones where all labels are equally sure.
    kinds : array of str, shape (n,)
    paths : array of str, shape (n,)
        Of the photos.
    """

    name: str
    X: NDArray[np.float32]
    y: NDArray[np.int64]
    classes: tuple[str, ...]
    weights: NDArray[np.float64]
    kinds: NDArray[np.str_]
    paths: NDArray[np.str_]


def cats_dogs(_: Path) -> Iterator[Photo]:
    """Give the 3,000 photos of cats and dogs of the shared folder."""
    return _of_folders(shared_folder() / "data" / "cats_dogs")


def catanddog(_: Path) -> Iterator[Photo]:
    """Give the 483 photos of the shared folder's small set."""
    return _of_folders(shared_folder() / "data" / "catanddog")


def solar_cells(_: Path) -> Iterator[Photo]:
    """Give 2,624 solar cells, functional or defective.

    The annotation is the probability of a defect: 0, 1/3, 2/3 or 1 (Deitsch et al., Automatic classification
    of defective photovoltaic module cells in electroluminescence images, Solar Energy 185, 2019, 455-468).
    The label is the more probable one, and its probability is the photo's weight.
    """
    for path, probability, kind in _cells():
        yield Photo(path, "defective" if probability >= 0.5 else "functional", _sureness(probability), kind)


def solar_levels(_: Path) -> Iterator[Photo]:
    """Give the solar cells with the four probabilities of a defect as classes."""
    return (Photo(path, f"{probability:.0%}", kind=kind) for path, probability, kind in _cells())


def solar_types(_: Path) -> Iterator[Photo]:
    """Give the solar cells, mono- or polycrystalline."""
    return (Photo(path, kind, kind=kind) for path, _, kind in _cells())


def digits(folder: Path) -> Iterator[Photo]:
    """Write scikit-learn's 1,797 digits of 8x8 pixels as PNG files of 64x64."""
    from sklearn.datasets import load_digits

    data = load_digits()
    for number, (values, label) in enumerate(zip(data.images, data.target, strict=True)):
        path = folder / f"{label}-{number:04}.png"
        pixels = Image.fromarray((values * 255 / 16).round().astype(np.uint8))
        pixels.resize((_DIGIT_SIZE, _DIGIT_SIZE), Image.Resampling.BICUBIC).save(path)
        yield Photo(path, str(label))


def four_kinds(folder: Path) -> Iterator[Photo]:
    """Give 400 cats, 400 dogs and 400 solar cells of each type."""
    every = chain(cats_dogs(folder), solar_types(folder))
    by_label: dict[str, list[Photo]] = {}
    for photo in every:
        by_label.setdefault(photo.label, []).append(photo)
    return chain.from_iterable(photos[:_OF_EACH_KIND] for photos in by_label.values())


SETS: dict[str, Callable[[Path], Iterable[Photo]]] = {
    "cats_dogs": cats_dogs,
    "catanddog": catanddog,
    "solar_cells": solar_cells,
    "solar_levels": solar_levels,
    "solar_types": solar_types,
    "digits": digits,
    "four_kinds": four_kinds,
}


def feature_set(name: str, folder: Path) -> FeatureSet:
    """Return a set; its features are computed once and then kept in `folder`."""
    path = folder / f"{name}.npz"
    if not path.exists():
        photos = folder / "photos" / name
        photos.mkdir(parents=True, exist_ok=True)
        _write(path, _computed(list(SETS[name](photos)), folder))
    with np.load(path, allow_pickle=False) as kept:
        arrays = {key: kept[key] for key in kept.files}
    return FeatureSet(name, **(arrays | {"classes": tuple(arrays["classes"].tolist())}))


def recipe(photos: Iterable[tuple[Any, str]], folder: Path, work: Path, **sections: Any) -> Recipe:
    """Return a recipe on photos of a set, with the network and the store of the sets.

    Parameters
    ----------
    photos : iterable of (path, label)
    folder : Path
        Of the sets.
    work : Path
        Where the manifest and the run go.
    **sections
        Further sections of the recipe.
    """
    manifest = work / "photos.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *photos])
    places = {"cache": str(folder.absolute() / "cache"), "run": str(work / "run")}
    return Recipe.parse({"data": {"manifest": str(manifest)}, "base": _network(), **places, **sections})


def _network() -> dict[str, Any]:
    return {"weights": str(shared_folder() / "weights" / WEIGHTS), "image_size": _SIZE, "precision": "f32"}


def _write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    partial.replace(path)


def _computed(photos: Sequence[Photo], folder: Path) -> dict[str, NDArray[Any]]:
    by_path = {str(one.path.resolve()): one for one in photos}
    with tempfile.TemporaryDirectory() as work:
        labelled = ((path, one.label) for path, one in by_path.items())
        with extract(recipe(labelled, folder, Path(work))).open() as features:
            splits = [features[split] for split in features.splits]
            X, y = (np.concatenate(parts) for parts in zip(*(split.load() for split in splits), strict=True))
            digests = np.concatenate([split.digests for split in splits])
            paths = [path for split in splits for path in split.paths]
            classes = features.classes
    first = _first_of_each(digests, paths)
    chosen = [by_path[paths[row]] for row in first]
    return {
        "X": X[first].astype(np.float32),
        "y": y[first],
        "classes": np.array(classes),
        "weights": np.array([one.weight for one in chosen]),
        "kinds": np.array([one.kind or one.label for one in chosen]),
        "paths": np.array([str(one.path.resolve()) for one in chosen]),
    }


def _first_of_each(digests: NDArray[np.uint8], paths: Sequence[str]) -> list[int]:
    """Return the rows of the first path of each digest, in the order of the paths."""
    rows: dict[bytes, int] = {}
    for row in sorted(range(len(paths)), key=paths.__getitem__):
        rows.setdefault(digests[row].tobytes(), row)
    return list(rows.values())


def _of_folders(folder: Path) -> Iterator[Photo]:
    """Give the photos of all class folders below the split folders of `folder`."""
    for path in sorted(folder.glob("*/*/*")):
        yield Photo(path, path.parent.name)


def _cells() -> Iterator[tuple[Path, float, str]]:
    """Give path, probability of a defect and type of every photo of the package elpv-dataset."""
    found = find_spec("elpv_dataset")
    if found is None or found.origin is None:
        raise SystemExit("the solar cells are missing; pip install elpv-dataset")
    folder = Path(found.origin).parent / "data"
    for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines():
        name, probability, kind = line.split()
        yield folder / name, float(probability), kind


def _sureness(probability: float) -> float:
    return max(probability, 1 - probability)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the .npz files are kept")
    parser.add_argument("--only", action="append", choices=SETS, help="a set; may be repeated")
    arguments = parser.parse_args()
    for name in arguments.only or SETS:
        found = feature_set(name, arguments.folder)
        counts = np.bincount(found.y, minlength=len(found.classes))
        sizes = ", ".join(f"{count:,} {label}" for label, count in zip(found.classes, counts, strict=True))
        print(f"{name}: {len(found.y):,} photos: {sizes}")


if __name__ == "__main__":
    main()
