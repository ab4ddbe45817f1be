"""The rows of a feature file that heads are trained and scored on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bases.spec import BaseSpec
from featcache.evaluation.choosing import FOLDS, Comparison, comparison_for
from featcache.evaluation.folds import draw_folds
from featcache.extraction.stage import Extraction
from featcache.recipe import Recipe
from featcache.run.predictions import ScoredRows
from featcache.store.feature_file import Features
from featcache.store.split import Split

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
    def scored(self) -> ScoredRows:
        """The photos that heads are scored on: validation, or with folds train and validation.

        Raises
        ------
        TrainingError
            A class has too few photos for the folds.
        """
        count = self.comparison.folds
        folds = None if count is None else self.draw_folds(count)
        return ScoredRows(self._digests, self._labels, folds)

    def draw_folds(self, count: int) -> NDArray[np.int64]:
        """Assign the photos that heads are scored on to folds.

        Raises
        ------
        TrainingError
            A class has too few photos.
        """
        return draw_folds(self._labels, self._digests, count, self._settings.seed, self.classes)

    def folds_of_all(self) -> NDArray[np.int64]:
        """Assign the photos of train and validation together, in this order, to folds.

        Raises
        ------
        TrainingError
            A class has too few photos.
        """
        with self._extraction.open() as features:
            splits = [features[split] for split in ("train", "validation") if split in features]
            labels = np.concatenate([split.labels for split in splits])
            digests = np.concatenate([split.digests for split in splits])
            count = max(2, min(FOLDS, _rarest(splits, len(self.classes))))
        return draw_folds(labels, digests, count, self._settings.seed, self.classes)

    @property
    def calibration_folds(self) -> int:
        """Number of folds for cross-fitting a calibration: at most the photos of the rarest class."""
        rarest = min(
            len(np.unique(self._digests[self._labels == label], axis=0)) for label in range(len(self.classes))
        )
        return min(_MOST_CALIBRATION_FOLDS, rarest)


def comparison_of(recipe: Recipe, features: Features) -> Comparison:
    """Decide on which photos of a feature file a recipe's heads are compared."""
    method, folds = recipe.selection.method, recipe.data.folds
    if folds is not None or method == "validation":
        return Comparison(folds)
    splits = [features[split] for split in ("train", "validation") if split in features]
    rarest = _rarest(splits, len(features.classes))
    if method == "cross_validation":
        return Comparison(max(2, min(FOLDS, rarest)))
    train, validation = (len(features[name]) if name in features else 0 for name in ("train", "validation"))
    return comparison_for(validation, train, rarest, _needs_validation(recipe))


def _needs_validation(recipe: Recipe) -> str | None:
    """Name what a recipe needs validation photos for that heads are not trained on."""
    if recipe.finetune is not None:
        return "[finetune]"
    if recipe.augment is not None:
        return "[augment]"  # views of validation photos are not there
    calibrated = [head.name for head in recipe.heads if head.calibrate != "none"]
    return f"the calibration of {calibrated[0]}" if calibrated else None


def _rarest(splits: Sequence[Split], classes: int) -> int:
    """Return the number of different photos of the rarest class."""
    labels = np.concatenate([split.labels for split in splits])
    digests = np.concatenate([split.digests for split in splits])
    first = np.unique(digests, axis=0, return_index=True)[1]
    return int(np.bincount(labels[first], minlength=classes).min())


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
    return digest.hexdigest()
