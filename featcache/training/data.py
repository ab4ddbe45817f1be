"""The rows of a feature file that heads are trained and scored on."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bases.spec import BaseSpec
from featcache.evaluation.choosing import FOLDS, Comparison, comparison_for
from featcache.evaluation.folds import draw_folds
from featcache.evaluation.novelty import Novelty
from featcache.extraction.stage import Extraction
from featcache.images.rows import SPLITS
from featcache.model_photos import ModelPhotos
from featcache.recipe import Recipe
from featcache.run.predictions import ScoredRows
from featcache.store.feature_file import Features
from featcache.store.split import Split
from featcache.training.novelty import novelty_of
from featcache.training.sampling import Sampling

Rows = tuple[NDArray[Any], NDArray[np.int64]]
"""Features and labels."""

_MOST_CALIBRATION_FOLDS = 5


class TrainingData:
    """The rows that heads are trained and scored on, loaded when they are first needed.

    With cross-validation train holds the validation rows, too. Train has all views of its photos, the other
    splits have the plain photos.

    Parameters
    ----------
    extraction : Extraction
    recipe : Recipe

    Attributes
    ----------
    comparison : Comparison
        On which photos heads are compared.
    sampling : dict of str to Sampling
        Weights and groups of the photos of each split; those of train are of all photos that heads are
        trained on.
    scored_sampling : Sampling
        Of the photos that heads are scored on.
    sampling_of_all : Sampling
        Of the photos of train and validation together.
    validation_labels : array of shape (n,)
        Of validation, also where heads are compared on more photos; of train where there is no validation.
    """

    def __init__(self, extraction: Extraction, recipe: Recipe) -> None:
        self._extraction, self._settings, self._seed = extraction, recipe.data, recipe.seed
        with extraction.open() as features:
            self.spec = BaseSpec.from_json(features.base)
            self.classes: tuple[str, ...] = features.classes
            self.comparison = comparison_of(recipe, features)
            self.fingerprint = fingerprint_of(features, self.comparison.folds)
            self.views = features["train"].views
            self.has_test = "test" in features
            self.test_photos = photos_hash(features["test"]) if self.has_test else ""
            names = ["validation"] if self.comparison.folds is None else ["train", "validation"]
            splits = [features[split] for split in names if split in features]
            self.photos = [path for split in splits for path in split.paths]
            self._digests = np.concatenate([split.digests for split in splits])
            self._labels = np.concatenate([split.labels for split in splits])
            self.sampling = {name: Sampling.of([features[name]]) for name in features.splits}
            self.scored_sampling = Sampling.of(splits)
            self.sampling_of_all = Sampling.of(_learned(features))
            if self.comparison.folds is not None:
                self.sampling["train"] = self.scored_sampling
            self.validation_labels = features["validation" if "validation" in features else "train"].labels
            self._digests_of = {split: features[split].digests for split in features.splits}

    @cached_property
    def rows(self) -> dict[str, Rows]:
        """Features and labels by split."""
        with self._extraction.open() as features:
            rows = {split: features[split].load() for split in features.splits if split != "train"}
            rows["train"] = features["train"].load_views()
            if self.comparison.folds is not None and "validation" in rows:
                X, y = features["validation"].load_views()
                del rows["validation"]
                rows["train"] = np.concatenate([rows["train"][0], X]), np.concatenate([rows["train"][1], y])
        return rows

    @cached_property
    def model_photos(self) -> ModelPhotos:
        """The photos that heads are fitted on, and those that only help to choose one."""
        digests = [self._digests_of.get(split, np.empty((0, 32), np.uint8)) for split in SPLITS[:2]]
        if self.scored.folds is not None:
            digests = [np.concatenate(digests), digests[1][:0]]
        return ModelPhotos.of(*digests)

    @cached_property
    def scored(self) -> ScoredRows:
        """The photos that heads are scored on: validation, or with folds train and validation.

        Raises
        ------
        TrainingError
            A class has too few photos for the folds.
        """
        count = self.comparison.folds
        folds = None if count is None else self.draw_folds(count)
        return ScoredRows(self._digests, self._labels, folds, **self.scored_sampling.columns)

    @cached_property
    def novelty(self) -> Novelty | None:
        """What tells photos of the classes from others; None where no class has photos of two groups."""
        with self._extraction.open() as features:
            return novelty_of(features, self._seed)

    def draw_folds(self, count: int) -> NDArray[np.int64]:
        """Assign the photos that heads are scored on to folds.

        Raises
        ------
        TrainingError
            A class has too few photos.
        """
        groups = self.scored_sampling.groups
        return draw_folds(self._labels, self._digests, count, self._settings.seed, self.classes, groups)

    def folds_of_all(self) -> NDArray[np.int64]:
        """Assign the photos of train and validation together, in this order, to folds.

        Raises
        ------
        TrainingError
            A class has too few photos.
        """
        with self._extraction.open() as features:
            splits = _learned(features)
            labels = np.concatenate([split.labels for split in splits])
            digests = np.concatenate([split.digests for split in splits])
        groups = self.sampling_of_all.groups
        count = max(2, min(FOLDS, _fewest(labels, digests, groups)))
        return draw_folds(labels, digests, count, self._settings.seed, self.classes, groups)

    @property
    def calibration_folds(self) -> int:
        """Number of folds for cross-fitting a calibration, at most the rarest class's photos or groups."""
        rarest = _fewest(self._labels, self._digests, self.scored_sampling.groups)
        return min(_MOST_CALIBRATION_FOLDS, rarest)


def comparison_of(recipe: Recipe, features: Features) -> Comparison:
    """Decide on which photos of a feature file a recipe's heads are compared."""
    method, folds = recipe.selection.method, recipe.data.folds
    if folds is not None or method == "validation":
        return Comparison(folds)
    splits = _learned(features)
    labels = np.concatenate([split.labels for split in splits])
    digests = np.concatenate([split.digests for split in splits])
    groups = Sampling.of(splits).groups
    rarest = _fewest(labels, digests, groups)
    if method == "cross_validation":
        return Comparison(max(2, min(FOLDS, rarest)))
    validation = len(features["validation"]) if "validation" in features else 0
    counted = validation if groups is None else len(np.unique(groups[len(groups) - validation :]))
    unit = "photos" if groups is None else "groups of photos"
    return comparison_for(counted, len(labels), rarest, _needs_validation(recipe), unit)


def _learned(features: Features) -> list[Split]:
    """Return train and, where it is there, validation."""
    return [features[split] for split in ("train", "validation") if split in features]


def _needs_validation(recipe: Recipe) -> str | None:
    """Name what a recipe needs validation photos for that heads are not trained on."""
    if recipe.finetune is not None:
        return "[finetune]"
    if recipe.augment is not None:
        return "[augment]"  # views of validation photos are not there
    calibrated = [head.name for head in recipe.heads if head.calibrate != "none"]
    return f"the calibration of {calibrated[0]}" if calibrated else None


def _fewest(labels: NDArray[Any], digests: NDArray[Any], groups: NDArray[Any] | None) -> int:
    """Return the number of different photos, or of groups where there are any, of the rarest class."""
    units = digests if groups is None else groups
    return min(len(np.unique(units[labels == label], axis=0)) for label in np.unique(labels))


def photos_hash(split: Split) -> str:
    """Return a hash of a split's photos, whatever their order."""
    return hashlib.sha256(np.unique(split.digests, axis=0).tobytes()).hexdigest()


def fingerprint_of(features: Features, folds: int | None = None) -> str:
    """Return a hash of the data that heads are trained and scored on; scores of the same hash compare."""
    facts = [features.base, features.classes, *([] if folds is None else [folds])]
    # nothing is added without augmentation, so that hashes of earlier versions stay valid
    facts += [[split, features[split].view_numbers] for split in features.splits if features[split].views > 1]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for split in features.splits:
        digest.update(split.encode())
        digest.update(features[split].digests.tobytes())
        digest.update(features[split].labels.tobytes())
        sampling = Sampling.of([features[split]])
        for name, column in sampling.columns.items():
            if column is not None:
                digest.update(name.encode())
                digest.update(column.tobytes())
    return digest.hexdigest()
