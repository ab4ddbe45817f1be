"""The scores of predictions and of heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    recall_score,
    roc_auc_score,
)

from featcache.errors import ClassifierError
from featcache.evaluation.bootstrap import Interval, intervals
from featcache.evaluation.calibration_error import expected_calibration_error
from featcache.evaluation.calls import call, first_line
from featcache.evaluation.predictions import Predictions
from featcache.evaluation.shares import Bounds, share_intervals


def scores(
    y_true: Any,
    probabilities: NDArray[Any] | None,
    predicted: Any,
    classes: Sequence[Any] | NDArray[Any],
    decision: NDArray[Any] | None = None,
    weights: Any = None,
    groups: Any = None,
) -> dict[str, Any]:
    """Return the scores of predictions.

    Parameters
    ----------
    y_true, predicted : arrays of shape (n,)
        Labels, all of `classes`.
    probabilities : array of shape (n, k), or None
        Columns as in `classes`.
    classes : sequence of k labels
        Sorted, as a classifier's ``classes_`` are.
    decision : array of shape (n,) or (n, k), optional
        Decision values, for ROC AUC and average precision without probabilities.
    weights : array of shape (n,), optional
        Sample weights, 0 or more: in all scores a row counts that much. Rows of weight 0 are left out.
    groups : array of shape (n,), optional
        Rows with the same value belong together; intervals take them for one observation.

    Returns
    -------
    dict
        ``n``, the number of rows; with `groups` also ``groups``, their number; with `weights` that differ
        ``weighted``, which is True; ``accuracy``, ``accuracy_low`` and ``accuracy_high`` (95%: Wilson
        interval or, with groups or weights, bootstrap, see `featcache.evaluation.shares`),
        ``balanced_accuracy`` (mean recall of the classes in `y_true`), ``macro_f1`` (over the true and
        predicted classes), ``log_loss`` and ``ece`` (see `expected_calibration_error`; both None without
        probabilities), ``roc_auc`` and ``average_precision`` (with two classes those of the second; with
        more, the mean of one against the rest; None where a class is missing in `y_true`, or without
        probabilities and decision values).

    Raises
    ------
    ValueError
        There are no rows, the shapes do not match, a label is not in `classes`, probabilities are not in
        [0, 1], or weights are negative, not finite or all 0.
    """
    given = Predictions.of(y_true, probabilities, predicted, classes, decision, weights, groups)
    (accuracy,) = share_intervals(given, np.ones((1, len(given)), bool))
    return _scores(given, accuracy, groups is not None)


def full_scores(
    y_true: Any,
    probabilities: NDArray[Any] | None,
    predicted: Any,
    classes: Sequence[Any] | NDArray[Any],
    decision: NDArray[Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    weights: Any = None,
    groups: Any = None,
) -> dict[str, Any]:
    """Return the scores of predictions with all intervals, the confusion matrix and the scores by class.

    Parameters
    ----------
    y_true, probabilities, predicted, classes, decision, weights, groups
        As for `scores`.
    resamples, seed : int
        As for `intervals`.

    Returns
    -------
    dict
        What `scores` gives, and ``<metric>_low`` and ``<metric>_high`` for the 95% `intervals`;
        ``confusion``, the confusion matrix as k lists, one per true class, of k numbers of rows (not of their
        weights), one per predicted class; ``per_class``, a list of k dicts of ``class``, ``precision`` (None
        for a class that was never predicted), ``recall`` (None for one without rows), ``recall_low`` and
        ``recall_high`` (95%, by the method of the accuracy's interval), ``f1`` (None where both are None) and
        ``n``, the number of rows.

    Raises
    ------
    ValueError
        As `scores` and `intervals` do.
    """
    given = Predictions.of(y_true, probabilities, predicted, classes, decision, weights, groups)
    bounds = intervals(
        y_true, probabilities, predicted, classes, decision, resamples, seed, weights=weights, groups=groups
    )
    there = np.unique(given.true)
    of_rows = np.stack([np.ones(len(given), bool), *(given.true == label for label in there)])
    accuracy, *recalls = share_intervals(given, of_rows, resamples, seed)
    return {
        **_scores(given, accuracy, groups is not None),
        **_bounds(bounds),
        "confusion": _confusion(given, None).tolist(),
        "per_class": _per_class(given, dict(zip(there.tolist(), recalls, strict=True))),
    }


def score_head(head: Any, X: Any, y: Any, with_intervals: bool = False) -> dict[str, Any]:
    """Return the `scores` of a fitted classifier on features `X` and labels `y`.

    Parameters
    ----------
    head : classifier
    X : array of shape (n, h, w, c) or (n, c)
    y : array of shape (n,)
    with_intervals : bool, default False
        Add ``<metric>_low`` and ``<metric>_high`` for the 95% `intervals`.

    Raises
    ------
    ValueError
        As `scores` and the head's own ``predict`` do.
    """
    predictions = predictions_of(head, X, y)
    return scores(*predictions) | (_bounds(intervals(*predictions)) if with_intervals else {})


def score_head_fully(head: Any, X: Any, y: Any, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return the `full_scores` of a fitted classifier on features `X` and labels `y`.

    Raises
    ------
    ValueError
        As `full_scores` and the head's own ``predict`` do.
    """
    return full_scores(*predictions_of(head, X, y), resamples=resamples, seed=seed)


def decides_by_pairs(head: Any) -> bool:
    """Whether the decision values are of pairs of classes, which rank no class."""
    return decides_one_vs_one(head) and len(head.classes_) > 2


def decides_one_vs_one(head: Any) -> bool:
    """Whether the head, fitted or not, compares pairs of classes where there are more than two."""
    parameters = head.get_params() if hasattr(head, "get_params") else {}
    shapes = [value for name, value in parameters.items() if name.endswith("decision_function_shape")]
    return "ovo" in shapes


def predictions_of(head: Any, X: Any, y: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Predict `X` once with a fitted classifier and return the arguments of `scores`.

    With a decision value between two classes the prediction is its sign, see "decision_function" in
    scikit-learn's glossary: calling both methods would go through an SVC's support vectors twice, which takes
    longer than fitting it.

    Returns
    -------
    y, probabilities, predicted, classes, decision

    Raises
    ------
    ClassifierError
        The classifier refuses `X`, or gives something else than labels and probabilities.
    """
    probabilities = call(head.predict_proba, X) if hasattr(head, "predict_proba") else None
    ranks = probabilities is None and hasattr(head, "decision_function") and not decides_by_pairs(head)
    decision = call(head.decision_function, X) if ranks else None
    if decision is not None and decision.ndim == 1:
        predicted = head.classes_[(decision > 0).astype(int)]
    else:
        predicted = call(head.predict, X)
    arguments = y, probabilities, predicted, head.classes_, decision
    try:
        Predictions.of(*arguments)
    except ValueError as error:
        raise ClassifierError(first_line(error)) from error
    return arguments


def _scores(given: Predictions, accuracy: Bounds, grouped: bool) -> dict[str, Any]:
    weights = given.weights
    return {
        "n": len(given),
        **({"groups": given.group_count} if grouped else {}),
        **({"weighted": True} if weights is not None else {}),
        "accuracy": float(accuracy_score(given.true, given.predicted, sample_weight=weights)),
        "accuracy_low": accuracy[0],
        "accuracy_high": accuracy[1],
        # balanced_accuracy_score is the same number, but warns of classes that occur only in the predictions
        "balanced_accuracy": float(
            recall_score(
                given.true,
                given.predicted,
                labels=np.unique(given.true),
                average="macro",
                zero_division=0,
                sample_weight=weights,
            )
        ),
        "macro_f1": float(
            f1_score(given.true, given.predicted, average="macro", zero_division=0, sample_weight=weights)
        ),
        "roc_auc": _of_rankings(roc_auc_score, given),
        "average_precision": _of_rankings(average_precision_score, given),
        **_probability_scores(given),
    }


def _probability_scores(given: Predictions) -> dict[str, float | None]:
    if given.probabilities is None:
        return {"log_loss": None, "ece": None}
    labels = np.arange(len(given.classes))
    return {
        "log_loss": float(np.average(given.losses(), weights=given.weights)),
        "ece": expected_calibration_error(given.true, given.probabilities, labels, weights=given.weights),
    }


def _of_rankings(area: Callable[..., float], given: Predictions) -> float | None:
    # roc_auc_score(multi_class="ovr") is this mean, too, but takes probabilities only
    areas = [
        area(given.true == label, values, sample_weight=given.weights) for label, values in given.rankings()
    ]
    # sums of weights can be rounded to a little more than 1
    return min(float(np.mean(areas)), 1.0) if areas else None


def _bounds(found: dict[str, Interval]) -> dict[str, float | None]:
    return {
        f"{metric}_{end}": bound
        for metric, ends in found.items()
        for end, bound in zip(("low", "high"), ends, strict=True)
    }


def _confusion(given: Predictions, weights: NDArray[np.float64] | None) -> NDArray[Any]:
    labels = np.arange(len(given.classes))
    found: NDArray[Any] = confusion_matrix(given.true, given.predicted, labels=labels, sample_weight=weights)
    return found


def _per_class(given: Predictions, recalls: Mapping[int, Bounds]) -> list[dict[str, Any]]:
    confusion, rows = _confusion(given, given.weights), np.bincount(given.true, minlength=len(given.classes))
    right, there, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    bounds = [recalls.get(i, (None, None)) for i in range(len(rows))]
    return [
        {
            "class": label,
            "precision": _share(right[i], said[i]),
            "recall": _share(right[i], there[i]),
            "recall_low": bounds[i][0],
            "recall_high": bounds[i][1],
            "f1": _share(2 * right[i], there[i] + said[i]),
            "n": int(rows[i]),
        }
        for i, label in enumerate(given.classes.tolist())
    ]


def _share(part: Any, whole: Any) -> float | None:
    return min(float(part / whole), 1.0) if whole else None
