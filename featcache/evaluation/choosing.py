"""Which of several heads is the best, and on which photos heads are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from featcache.evaluation.scoring import decides_one_vs_one

FEWEST_VALIDATION_PHOTOS = 300
"""With fewer validation photos heads are compared by cross-validation, see ``docs/choosing.md``."""

FOLDS = 5
FEWEST_FOLDS = 3

_LOWER_IS_BETTER = frozenset({"log_loss"})
_NEEDS_PROBABILITIES = frozenset({"log_loss"})
_NEEDS_RANKING = frozenset({"roc_auc", "average_precision"})


def goodness(scores: Mapping[str, Any], metric: str) -> float:
    """Return the score by the metric, so that higher is better; minus infinity where there is none."""
    value = scores.get(metric)
    if value is None or not math.isfinite(value):
        return -math.inf
    return -float(value) if metric in _LOWER_IS_BETTER else float(value)


def rank(scores: Mapping[str, Any], metric: str) -> tuple[bool, float, float, float]:
    """Return what heads are sorted by; the best head has the highest rank.

    A head that predicts one class only has learned nothing, however frequent that class is: it comes after
    all others. Heads are then compared by the metric, by log loss and by accuracy; one without a score, such
    as the log loss of a head without probabilities, comes after those with one.

    Parameters
    ----------
    scores : mapping
        As `featcache.evaluation.full_scores` gives them.
    metric : str
    """
    metrics = (metric, "log_loss", "accuracy")
    first, second, third = (goodness(scores, name) for name in metrics)
    return only_class_of(scores) is None, first, second, third


def only_class_of(scores: Mapping[str, Any]) -> str | None:
    """Return the class that was predicted for every row, where the rows are of several classes; else None.

    Parameters
    ----------
    scores : mapping
        As `featcache.evaluation.full_scores` gives them.
    """
    predicted = [sum(column) for column in zip(*scores["confusion"], strict=True)]
    true = [one["n"] for one in scores["per_class"]]
    if sum(map(bool, predicted)) != 1 or sum(map(bool, true)) < 2:
        return None
    return str(scores["per_class"][predicted.index(max(predicted))]["class"])


def weakness(scores: Mapping[str, Any]) -> str | None:
    """Say in a sentence why even the best head is not worth using; None where nothing speaks against it.

    Parameters
    ----------
    scores : mapping
        As `featcache.evaluation.full_scores` gives them.
    """
    only = only_class_of(scores)
    if only is not None:
        return f"it predicts one class only: {only}"
    largest = max(scores["per_class"], key=lambda one: one["n"], default=None)
    if largest is None or not scores["n"]:
        return None
    share = largest["n"] / scores["n"]
    if scores["accuracy"] > share:
        return None
    return f"its accuracy is not above that of always answering {largest['class']} ({100 * share:.1f}%)"


def missing_for(metric: str, head: Any, classes: int = 2) -> str | None:
    """Return what a head lacks to be scored by the metric, as "no probabilities"; None where it can be.

    Parameters
    ----------
    metric : str
    head : classifier
        Fitted or not.
    classes : int, default 2
        Number of classes. Heads that can be scored on more classes can be scored on two.
    """
    if metric not in _NEEDS_PROBABILITIES | _NEEDS_RANKING or hasattr(head, "predict_proba"):
        return None
    if metric in _NEEDS_PROBABILITIES:
        return "no probabilities"
    if not hasattr(head, "decision_function"):
        return "neither probabilities nor decision values"
    return "no decision value for each class" if classes > 2 and decides_one_vs_one(head) else None


@dataclass(frozen=True)
class Comparison:
    """On which photos heads are compared.

    Attributes
    ----------
    folds : int or None
        Number of folds of train and validation together; None for the validation photos.
    reason : str
        Why, where that was not asked for; empty where there is nothing to say.
    """

    folds: int | None
    reason: str = ""


def comparison_for(
    validation: int,
    photos: int,
    rarest: int,
    needs_validation: str | None = None,
    unit: str = "photos",
) -> Comparison:
    """Decide on which photos heads are compared, where the recipe leaves it open.

    Few validation photos cannot tell heads apart: with 100 of them the standard error of an accuracy of 90%
    is 3%. Cross-validation compares heads on all photos of train and validation.

    Parameters
    ----------
    validation : int
        Number of photos, or of groups of photos that belong together, in validation.
    photos : int
        Number of photos in train and validation together.
    rarest : int
        Number of different photos (groups) of the rarest class in both splits together.
    needs_validation : str, optional
        What needs photos that heads are not trained on, as "fine-tuning".
    unit : str, default "photos"
        What `validation` and `rarest` count.
    """
    if not 0 < validation < FEWEST_VALIDATION_PHOTOS:
        return Comparison(None)
    few = f"validation has {validation:,} {unit}, which is few to tell heads apart"
    if needs_validation is not None:
        return Comparison(None, f"{few}; cross-validation is not used, because {needs_validation} needs them")
    folds = min(FOLDS, rarest)
    if folds < FEWEST_FOLDS:
        return Comparison(
            None, f"{few}; cross-validation is not used, because the rarest class has {rarest:,} {unit}"
        )
    return Comparison(
        folds,
        f"{few}: they are compared by {folds}-fold cross-validation on the {photos:,} photos of "
        "train and validation, and then trained on all of them; set selection.method to 'validation' to "
        "compare them on validation alone",
    )
