"""A trained model as one thing: how photos are decoded, the base, the head and the classes.

Heads are imported where one is loaded or saved, so that looking at a model's facts needs no scikit-learn.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bases.base import NETWORK_FILE, Base
from featcache.bases.contract import ReadOnly, SpecStore
from featcache.bases.spec import BaseSpec, files_of
from featcache.errors import DataError, ModelError
from featcache.featurize import Photo, featurize, featurize_pixels
from featcache.images.folders import photo_files
from featcache.model_files import read_model, write_model
from featcache.recipe import BaseSettings, default_cache
from featcache.reporter import SILENT, Reporter
from featcache.run.layout import HEADS_FILE, MODEL_FILE
from featcache.run.results import read_results
from featcache.store.base_store import Store
from featcache.store.shards import library_versions


@dataclass(frozen=True)
class Prediction:
    """What a model says of one photo.

    Attributes
    ----------
    path : str
    label : str or None
        None when the photo could not be decoded.
    probability : float or None
        Of `label`; None also for classifiers that give no probabilities.
    probabilities : dict of str to float, or None
        By class.
    reason : str or None
        Why there is no label.
    """

    path: str
    label: str | None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as JSON-ready data; ``reason`` only where there is one."""
        known = {
            "path": self.path,
            "label": self.label,
            "probability": self.probability,
            "probabilities": self.probabilities,
        }
        return known if self.reason is None else {**known, "reason": self.reason}


class Model:
    """A trained classifier of photos.

    Parameters
    ----------
    name : str
        The head's name in its recipe.
    classes : tuple of str
    settings : BaseSettings
        How the base is built and photos are decoded.
    spec : BaseSpec
        What the base was when the head was trained.
    head : classifier or Path
        On features (n, ...), with the labels 0 … len(classes) - 1; or the file that it is in.
    scores : dict
        On validation and, for the best head of a run, on test.
    cache : Path, optional
        The store that keeps the base's converted network; without it the base is built anew.
    """

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        settings: BaseSettings,
        spec: BaseSpec,
        head: Any,
        scores: dict[str, Any],
        cache: Path | None = None,
    ) -> None:
        self.name, self.classes, self.settings, self.spec, self.scores = name, classes, settings, spec, scores
        self.cache = default_cache() if cache is None else cache
        self._head = head
        self._is_foreign = False

    @cached_property
    def head(self) -> Any:
        """The classifier; of a model that was loaded, read when it is first asked for."""
        if not isinstance(self._head, Path):
            return self._head
        from featcache.heads.persistence import load_head

        return load_head(self._head)

    @cached_property
    def _classifier(self) -> Any:
        """What predicts: the head, or of a linear one what needs no scikit-learn."""
        if not isinstance(self._head, Path):
            return self._head
        from featcache.heads.linear import load_linear

        return load_linear(self._head) or self.head

    @property
    def has_probabilities(self) -> bool:
        """Whether the head gives probabilities of the classes."""
        return hasattr(self._classifier, "predict_proba")

    def save(self, folder: Path) -> None:
        """Write ``model.json`` and the head into `folder`, as a whole.

        Raises
        ------
        StoreError
            No room or no permission.
        ModelError
            The head is of a kind that cannot be saved.
        """
        from featcache.heads.persistence import save_head

        settings = self.settings.model_dump(mode="json")
        for key, path in files_of(self.settings).items():
            settings[key] = str(path.resolve())
        facts = {
            "name": self.name,
            "classes": list(self.classes),
            "base": {"settings": settings, "spec": self.spec.to_json()},
            "cache": str(self.cache.resolve()),
            "scores": self.scores,
            "versions": library_versions(),
        }
        write_model(folder, facts, lambda aside: save_head(self.head, aside))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Model:
        """Load a model's folder, or the best model of a run's folder.

        What the folder says decides nothing about where files are written: the store that it names is only
        read.

        Raises
        ------
        ModelError
            There is no whole model, or a file in it is damaged or not to be trusted.
        FormatError
            A newer version wrote it.
        """
        path = find_model(Path(folder))
        facts = read_model(path)
        model = cls(
            facts.name, facts.classes, facts.settings, facts.spec, facts.head, facts.scores, facts.cache
        )
        model._is_foreign = facts.cache.absolute() != default_cache().absolute()
        model._check_head(path)
        return model

    def _check_head(self, path: Path) -> None:
        """Refuse a head that knows other classes or takes other features than the model."""
        known = self._classifier.classes_
        if not np.array_equal(known, np.arange(len(self.classes))):
            raise ModelError(
                f"{path}: the model has {len(self.classes)} classes, but the head knows {len(known)} labels, "
                f"{known[:5].tolist()}…; train the head again"
            )
        try:
            self._classifier.predict(np.zeros((1, *self.spec.feature_shape), np.float32))
        except (ValueError, TypeError, IndexError, AttributeError, ArithmeticError, MemoryError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelError(f"{path}: the head does not take this base's features: {reason}") from None

    def predict(self, photos: Any, reporter: Reporter = SILENT) -> Iterator[Prediction]:
        """Classify photos in batches; one result per photo, in order.

        Parameters
        ----------
        photos : path, iterable of paths, or array of shape (n, height, width, 3), uint8
            A folder stands for all photos below it. An array holds decoded photos, RGB from 0 to 255, of the
            size that the model takes (``settings.image_size``), or one of them, (height, width, 3); it may
            also be a memory map or an h5py dataset, of which a few batches are read at a time.
        reporter : Reporter, optional

        Yields
        ------
        Prediction
            Of an array's rows with an empty path.

        Raises
        ------
        DataError
            A path does not exist, a folder is empty, or an array has another shape or dtype.
        ModelError
            The base is no longer the one that the head was trained on.
        """
        if _holds_numbers(photos):
            photos = _checked_pixels(photos, self.settings.image_size)
            batches = self._of_pixels(photos, self.base(len(photos), reporter))
        else:
            photos = [Photo(path) for path in expand(photos)]
            batches = self._of_files(photos, self.base(len(photos), reporter))
        done = 0
        reporter.advance("predicting", 0, len(photos))
        for batch in batches:
            yield from batch
            done += len(batch)
            reporter.advance("predicting", done, len(photos))

    def _of_files(self, photos: Sequence[Photo], base: Base) -> Iterator[list[Prediction]]:
        for batch in featurize(photos, base):
            found = {photo.path: Prediction(photo.path, None, reason=why) for photo, why in batch.failed}
            if batch.features is not None:
                decoded = [photo.path for photo in batch.photos]
                found |= {one.path: one for one in self._classify(decoded, batch.features)}
            yield [found[photo.path] for photo in batch.asked]

    def _of_pixels(self, pixels: Any, base: Base) -> Iterator[list[Prediction]]:
        return (self.predict_features(features) for features in featurize_pixels(pixels, base))

    def base(self, photos: int, reporter: Reporter = SILENT) -> Base:
        """Return the base that the head was trained on, for so many photos at a time, or fewer."""
        size = max(1, min(self.settings.batch_size, photos))  # a batch is filled up: one photo needs one
        settings = self.settings.model_copy(update={"batch_size": size})
        return Base(settings, self._spec_store(), reporter.note, self.spec)

    def _spec_store(self) -> SpecStore:
        """Return the store with the converted network: one that a file names is never written."""
        own, named = Store(default_cache()), Store(self.cache)
        if not self._is_foreign:
            return named
        name = self.spec.folder_name
        return (
            ReadOnly(named)
            if named.has_file(name, NETWORK_FILE) and not own.has_file(name, NETWORK_FILE)
            else own
        )

    def predict_features(self, features: NDArray[Any]) -> list[Prediction]:
        """Classify features (n, ...) that this model's base gave; paths are left empty."""
        return list(self._classify([""] * len(features), features))

    def probabilities(self, features: NDArray[Any]) -> NDArray[Any] | None:
        """Return the classes' probabilities (n, k) for features (n, ...); None for heads without any."""
        if not self.has_probabilities:
            return None
        return np.asarray(self._classifier.predict_proba(features))

    def _classify(self, paths: Sequence[str], features: NDArray[Any]) -> Iterator[Prediction]:
        labels, shares = self._classifier.predict(features), self.probabilities(features)
        for row, (path, label) in enumerate(zip(paths, labels, strict=True)):
            name = self.classes[label]
            if shares is None:
                yield Prediction(path, name)
            else:
                by_class = dict(zip(self.classes, shares[row].tolist(), strict=True))
                yield Prediction(path, name, by_class[name], by_class)


def _holds_numbers(photos: Any) -> bool:
    """Whether it is an array of pixels and not of paths; the wrong type of numbers is still one."""
    return hasattr(photos, "shape") and getattr(photos.dtype, "kind", "") in set("biufc")


def _checked_pixels(pixels: Any, size: tuple[int, int]) -> Any:
    """Return pixels of shape (n, height, width, 3); a single photo gets the first axis.

    Raises
    ------
    DataError
        The shape or the dtype is another.
    """
    height, width = size
    given, one = tuple(pixels.shape), (height, width, 3)
    if pixels.dtype != np.uint8 or given not in {one, (*given[:1], *one)}:
        raise DataError(
            f"the array has shape {given} and dtype {pixels.dtype}; this model takes pixels of shape "
            f"(n, {height}, {width}, 3), or ({height}, {width}, 3) for one photo, and dtype uint8, RGB from "
            "0 to 255. Photos of other sizes are given as files: they are resized as in training"
        )
    return pixels[None] if given == one else pixels


def expand(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the files that a path or some paths stand for, folders opened, in order.

    Raises
    ------
    DataError
        A path does not exist, a folder holds no file, or something else than a path is among them.
    """
    files: list[str] = []
    for path in _as_paths(paths):
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(f"{path} does not exist; give photos or a folder of photos") from None
        except (OSError, ValueError):
            is_folder = False  # reading it fails, with the reason, and the other photos are classified
        if not is_folder:
            files.append(str(path))
            continue
        inside = photo_files(path)
        if not inside:
            raise DataError(f"the folder {path} holds no file; give photos or a folder of photos")
        files.extend(inside)
    return files


def _as_paths(paths: Any) -> list[Path]:
    # a string is iterable, too: by its characters
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    try:
        return [Path(path) for path in given]
    except TypeError as error:
        raise DataError(
            f"photos are given as paths, or all as one array of pixels (n, height, width, 3): {error}"
        ) from None


def find_model(folder: Path) -> Path:
    """Return `folder` if it is a model, or the best model of the run that it is.

    Raises
    ------
    ModelError
        It is neither.
    """
    if (folder / MODEL_FILE).is_file():
        return folder
    if (folder / HEADS_FILE).is_file():
        best = _best_model(folder)
        if (best / MODEL_FILE).is_file():
            return best
    raise ModelError(
        f"{folder} is no model; give a folder like runs/NAME/models/HEAD, or runs/NAME for its best head"
    )


def _best_model(run: Path) -> Path:
    notes: list[str] = []
    results = read_results(run, notes.append)
    if results is None:
        reason = "; ".join(notes) or f"{run / HEADS_FILE} lists no heads"
        raise ModelError(f"{reason}; train the heads again, or give a model's own folder")
    for note in notes:
        warnings.warn(note, stacklevel=4)
    return results.best.model
