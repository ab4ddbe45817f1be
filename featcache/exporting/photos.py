"""The photos on which an export is checked and quantized: those of the model's recipe, or of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from featcache.bases.spec import BaseSpec
from featcache.errors import DataError, FormatError, StoreError
from featcache.exporting.check import UNKNOWN
from featcache.featurize import Photo, decode_unchanged
from featcache.inputs import expand
from featcache.model import Model
from featcache.run.layout import FEATURE_FILE, FINETUNE_FOLDER, run_of_model
from featcache.store.feature_file import Features

_T = TypeVar("_T")

ENOUGH = 100
MOST = 500
SAMPLE = 200

# Photos that the head was not trained on first.
_ORDER = ("validation", "test", "train")


@dataclass(frozen=True)
class Labelled:
    """Decoded photos.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (n, height, width, 3)
    labels : ndarray of int, shape (n,)
        Class numbers or `UNKNOWN`.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class ExportPhotos:
    """Photos by split, with their labels.

    Attributes
    ----------
    splits : dict of str to list of (Photo, label)
    name : str
        Where they come from, for messages.
    """

    splits: dict[str, list[tuple[Photo, int]]]
    name: str

    def to_check(self, model: Model) -> Labelled:
        """Decode 100 to 500 photos, of validation first, then of test, then of train; all if there are fewer.

        Raises
        ------
        DataError
            None of them is there any more.
        """
        pixels: list[NDArray[np.uint8]] = []
        labels: list[int] = []
        for split in _ORDER:
            if len(pixels) < ENOUGH:
                rows = spread(self.splits.get(split, []), MOST - len(pixels))
                places, decoded = decode_unchanged([photo for photo, _ in rows], model.settings)
                pixels += decoded
                labels += [rows[place][1] for place in places]
        if not pixels:
            raise DataError(f"{self.name} has no photo left that is unchanged. {_ADVICE}")
        return Labelled(np.stack(pixels), np.array(labels, np.int64))

    def to_quantize(self, model: Model) -> NDArray[np.uint8]:
        """Decode up to 200 photos of train, or of what there is, to calibrate int8's ranges on.

        Raises
        ------
        DataError
            None of them is there any more.
        """
        for split in reversed(_ORDER):
            rows = spread(self.splits.get(split, []), SAMPLE)
            _, pixels = decode_unchanged([photo for photo, _ in rows], model.settings)
            if pixels:
                return np.stack(pixels)
        raise DataError(f"{self.name} has no photo left that is unchanged. {_ADVICE}")


_ADVICE = "Give photos to check the export on with --photos FOLDER"


def spread(rows: Sequence[_T], count: int) -> list[_T]:
    """Return `count` rows, evenly from all of them: they are in the order of their classes."""
    if len(rows) <= count:
        return list(rows)
    return [rows[place * len(rows) // count] for place in range(count)]


def of_folder(folder: Path, model: Model) -> ExportPhotos:
    """Return a folder's photos; where a photo's folder has the name of a class, that is its label.

    Raises
    ------
    DataError
        There is no such folder, or no photo in it.
    """
    number = {name: place for place, name in enumerate(model.classes)}
    rows = [(Photo(path), number.get(Path(path).parent.name, UNKNOWN)) for path in expand([folder])]
    return ExportPhotos({"validation": rows}, str(folder))


def of_run(model_folder: Path, model: Model) -> ExportPhotos:
    """Return the photos of the run that a model's folder lies in, as its feature file lists them.

    Raises
    ------
    DataError
        There is no feature file that can be read.
    """
    reasons = []
    for file in _feature_files(model_folder.resolve(), model):
        try:
            with Features(file) as features:
                return ExportPhotos(
                    {split: _rows(features, split, model) for split in features.splits}, str(file)
                )
        except (FormatError, StoreError) as error:
            reasons.append(str(error))
    why = f" ({reasons[0]})" if reasons else ""
    raise DataError(f"the photos that {model_folder} was trained on are not known any more{why}. {_ADVICE}")


def _feature_files(model_folder: Path, model: Model) -> Iterator[Path]:
    """Give the feature files of the run, the one of the model's own base first."""
    run = run_of_model(model_folder)
    if run is None:
        return
    files = (run / FEATURE_FILE, run / FINETUNE_FOLDER / FEATURE_FILE)
    found = [file for file in files if file.is_file()]
    yield from sorted(found, key=lambda file: not _is_of(file, model))


def _is_of(file: Path, model: Model) -> bool:
    try:
        with Features(file) as features:
            return BaseSpec.from_json(features.base).fingerprint == model.spec.fingerprint
    except (FormatError, StoreError, KeyError, TypeError):
        return False


def _rows(features: Features, split: str, model: Model) -> list[tuple[Photo, int]]:
    number = {name: place for place, name in enumerate(model.classes)}
    rows = features[split]
    labels = [number.get(features.classes[label], UNKNOWN) for label in rows.labels]
    photos = [Photo(path, bytes(digest)) for path, digest in zip(rows.paths, rows.digests, strict=True)]
    return list(zip(photos, labels, strict=True))
