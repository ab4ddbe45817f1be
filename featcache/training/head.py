"""Train one head, calibrate it where the recipe wants that, and score it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ClassifierError, RecipeError, TrainingError, did_you_mean
from featcache.evaluation import full_scores
from featcache.evaluation.calls import call, collected_warnings
from featcache.evaluation.fitting import takes_weights
from featcache.evaluation.folds import CrossValidation, HeldOut, cross_fit, cross_validate
from featcache.evaluation.scoring import predictions_of
from featcache.heads.calibration import calibrated
from featcache.heads.dense.head import DenseHead
from featcache.heads.dense.refit import refit_after_folds
from featcache.heads.dense.training import tensorflow_loaded
from featcache.heads.estimators import build_head
from featcache.model import Model
from featcache.recipe import HeadSettings, Recipe
from featcache.reporter import Reporter
from featcache.run.layout import curves_file, model_folder, out_of_fold_file
from featcache.run.predictions import HeadPredictions
from featcache.run.results import HeadResult
from featcache.training.data import TrainingData
from featcache.training.novelty import conformal_of
from featcache.training.sampling import fit_options

FEWEST_CALIBRATION_FOLDS = 3
"""With two, a class of three photos would leave one to calibrate on."""


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A model with its scores and, where they are known, its predictions of the scored rows."""

    model: Model
    result: HeadResult
    predictions: HeadPredictions | None


def train_head(
    recipe: Recipe, settings: HeadSettings, head: Any, data: TrainingData, reporter: Reporter
) -> TrainedHead:
    """Train one head and score it on validation, or by cross-validation.

    Raises
    ------
    TrainingError
        The head cannot be trained on these features.
    """
    name = str(settings.name)
    for path in (curves_file(recipe.run, name), out_of_fold_file(recipe.run, name)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()  # of an earlier head of this name
    try:
        if data.scored.folds is None:
            seconds = _fit(head, settings, data, reporter)
            head, scores, predictions = _scored(head, settings, data, reporter)
        else:
            found = _cross_validated(recipe, head, name, data)
            scores, predictions = found.scores, _kept(found.predicted, found.probabilities)
            head = refit_after_folds(head, found.fitted) if isinstance(head, DenseHead) else head
            seconds = _fit(head, settings, data, reporter)
    except ClassifierError as error:
        raise TrainingError(f"it cannot be trained on these features: {error}") from error
    name_classes(scores, data.classes)
    known = name, data.classes, recipe.base, data.spec, head, {"validation": scores}, recipe.cache
    conformal = conformal_of(predictions, data.scored)
    model = Model(*known, photos=data.model_photos, novelty=data.novelty, conformal=conformal)
    key = trained_from(settings, recipe.seed)
    result = HeadResult(name, seconds, scores, None, model_folder(recipe.run, name), key)
    return TrainedHead(model, result, predictions)


def _fit(head: Any, settings: HeadSettings, data: TrainingData, reporter: Reporter) -> float:
    """Fit `head` in place and return the seconds that it took.

    A Dense head trains on one view of each photo in an epoch. Other heads have no epochs and train on all
    views; those that cross-validate keep the views of a photo together.
    """
    sampling = data.sampling["train"].of_views(data.views)
    extra = fit_options(head, sampling)
    if sampling.weights is not None and not takes_weights(head):
        reporter.note(
            f"head {settings.name!r}: {settings.type} takes no sample weights; it is trained without the "
            "weights of the photos, and scored with them"
        )
    if isinstance(head, DenseHead):
        tensorflow_loaded()  # its import is no part of the training
        extra |= {"validation_data": _validation_data(data), "views": data.views}
    X, y = data.rows["train"]
    started = time.monotonic()
    with collected_warnings() as warned:
        call(head.fit, X, y, **extra)
    for sentence in warned:
        reporter.note(f"head {settings.name!r}: {sentence}")
    return time.monotonic() - started


def _validation_data(data: TrainingData) -> tuple[Any, ...] | None:
    rows = data.rows.get("validation")
    weights = data.sampling["validation"].weights if rows is not None else None
    return rows if rows is None or weights is None else (*rows, weights)


def _scored(
    head: Any, settings: HeadSettings, data: TrainingData, reporter: Reporter
) -> tuple[Any, dict[str, Any], HeadPredictions]:
    """Return the head, calibrated where the recipe wants it, its scores and its predictions."""
    X, y = data.rows["validation"]
    columns = data.scored_sampling.columns
    if settings.calibrate == "none":
        predictions = predictions_of(head, X, y)
        return head, full_scores(*predictions, **columns), _kept(predictions[2], predictions[1])
    final = call(calibrated, head, X, y, *data.scored_sampling.given_weights)
    held_out = _cross_fitted(head, settings, data, reporter)
    if held_out is not None:
        scores = full_scores(y, held_out.probabilities, held_out.predicted, held_out.classes, **columns)
        scores["calibration"] = {"scored_on": "held-out folds", "folds": int(held_out.folds.max()) + 1}
        return final, scores, _kept(held_out.predicted, held_out.probabilities)
    predictions = predictions_of(final, X, y)
    scores = full_scores(*predictions, **columns)
    scores["calibration"] = {"scored_on": "the photos of the calibration"}
    return final, scores, _kept(predictions[2], predictions[1])


def _cross_fitted(
    head: Any, settings: HeadSettings, data: TrainingData, reporter: Reporter
) -> HeldOut | None:
    """Return predictions of validation, each photo's by a calibration without it; None where impossible."""
    X, y = data.rows["validation"]
    try:
        folds = data.draw_folds(max(data.calibration_folds, FEWEST_CALIBRATION_FOLDS))
        weights = data.scored_sampling.given_weights
        return cross_fit(lambda *rows: call(calibrated, head, *rows), X, y, folds, *weights)
    except TrainingError as error:
        reporter.note(
            f"head {settings.name!r}: its probabilities are scored on the photos of their calibration: log "
            f"loss and calibration error are too good; cross-fitting was not possible: {error}"
        )
        return None


def _cross_validated(recipe: Recipe, head: Any, name: str, data: TrainingData) -> CrossValidation:
    X, y = data.rows["train"]
    folds = data.scored.folds
    assert folds is not None
    columns = data.sampling["train"].of_views(data.views).columns
    found = cross_validate(head, X, y, folds.repeat(data.views), data.views, **columns)
    found.write(out_of_fold_file(recipe.run, name), data.photos, data.scored.labels, data.classes)
    return found


def _kept(predicted: NDArray[Any], probabilities: NDArray[Any] | None) -> HeadPredictions:
    shares = None if probabilities is None else np.asarray(probabilities, np.float32)
    return HeadPredictions(np.asarray(predicted, np.int64), shares)


def name_classes(scores: dict[str, Any], classes: Sequence[str]) -> None:
    """Replace the class numbers in the scores of a head by names."""
    for one in scores["per_class"]:
        one["class"] = classes[one["class"]]


def with_class_numbers(settings: HeadSettings, head: Any, classes: Sequence[str], seed: int) -> Any:
    """Return `head` with class weights by number where the recipe gives them by class name.

    Raises
    ------
    RecipeError
        A weight is given for a class that the photos do not have.
    """
    weights = settings.parameters.get("class_weight")
    if not isinstance(weights, dict):
        return head
    for name in weights:
        if name not in classes:
            raise RecipeError(
                f"head {settings.name!r}: class_weight names {name!r}, but the classes are "
                f"{', '.join(classes)}.{did_you_mean(name, classes)}"
            )
    by_number = {classes.index(name): weight for name, weight in weights.items()}
    return build_head(settings.model_copy(update={"class_weight": by_number}), seed)


def scored_on_test(one: TrainedHead, data: TrainingData) -> TrainedHead:
    """Return the head with its scores on test, where there is such a split.

    Raises
    ------
    TrainingError
        The classifier refuses the photos.
    """
    if not data.has_test or one.result.test is not None:
        return one
    try:
        predictions = predictions_of(one.model.head, *data.rows["test"])
        test = full_scores(*predictions, **data.sampling["test"].columns)
    except TrainingError as error:
        raise TrainingError(f"it cannot predict the test photos: {error}") from error
    name_classes(test, data.classes)
    return replace(one, result=replace(one.result, test=test))


def trained_from(settings: HeadSettings, seed: int) -> str:
    """Return a hash of what a head depends on beside its data."""
    facts = {"settings": settings.model_dump(mode="json"), "seed": seed}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
