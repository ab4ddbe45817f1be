"""The scores of predictions and of heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
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
from featcache.evaluation.wilson import wilson_interval


def scores(
    y_true: Any,
    probabilities: NDArray[Any] | None,
    predicted: Any,
    classes: Sequence[Any] | NDArray[Any],
    decision: NDArray[Any] | None = None,
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
        Decision values, for ROC AUC without probabilities.

    Returns
    -------
    dict
        ``n``, ``accuracy``, ``accuracy_low`` and ``accuracy_high`` (Wilson interval, 95%),
        ``balanced_accuracy`` (mean recall of the classes in `y_true`), ``macro_f1`` (over the true and
        predicted classes), ``log_loss`` and ``ece`` (see `expected_calibration_error`; both None without
        probabilities) and ``roc_auc`` (with two classes that of the second; with more, the mean of one
        against the rest; None where a class is missing in `y_true`, or without probabilities and decision
        values).

    Raises
    ------
    ValueError
        There are no rows, the shapes do not match, a label is not in `classes`, or probabilities are not in
        [0, 1].
    """
    return _scores(Predictions.of(y_true, probabilities, predicted, classes, decision))


def full_scores(
    y_true: Any,
    probabilities: NDArray[Any] | None,
    predicted: Any,
    classes: Sequence[Any] | NDArray[Any],
    decision: NDArray[Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the scores of predictions with all intervals, the confusion matrix and the scores by class.

    Parameters
    ----------
    y_true, probabilities, predicted, classes, decision
        As for `scores`.
    resamples, seed : int
        As for `intervals`.

    Returns
    -------
    dict
        What `scores` gives, and ``<metric>_low`` and ``<metric>_high`` for the 95% `intervals`;
        ``confusion``, the confusion matrix as k lists, one per true class, of k numbers, one per predicted
        class; ``per_class``, a list of k dicts of ``class``, ``precision`` (None for a class that was never
        predicted), ``recall`` (None for one without rows), ``f1`` (None where both are None) and ``n``, the
        number of rows.

    Raises
    ------
    ValueError
        As `scores` and `intervals` do.
    """
    given = Predictions.of(y_true, probabilities, predicted, classes, decision)
    bounds = intervals(y_true, probabilities, predicted, classes, decision, resamples, seed)
    confusion = confusion_matrix(given.true, given.predicted, labels=np.arange(len(given.classes)))
    return {
        **_scores(given),
        **_bounds(bounds),
        "confusion": confusion.tolist(),
        "per_class": _per_class(confusion, given.classes),
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


def _scores(given: Predictions) -> dict[str, Any]:
    low, high = wilson_interval(int((given.true == given.predicted).sum()), len(given))
    return {
        "n": len(given),
        "accuracy": float(accuracy_score(given.true, given.predicted)),
        "accuracy_low": low,
        "accuracy_high": high,
        # balanced_accuracy_score is the same number, but warns of classes that occur only in the predictions
        "balanced_accuracy": float(
            recall_score(
                given.true, given.predicted, labels=np.unique(given.true), average="macro", zero_division=0
            )
        ),
        "macro_f1": float(f1_score(given.true, given.predicted, average="macro", zero_division=0)),
        "roc_auc": _roc_auc(given),
        **_probability_scores(given),
    }


def _probability_scores(given: Predictions) -> dict[str, float | None]:
    if given.probabilities is None:
        return {"log_loss": None, "ece": None}
    labels = np.arange(len(given.classes))
    return {
        "log_loss": float(given.losses().mean()),
        "ece": expected_calibration_error(given.true, given.probabilities, labels),
    }


def _roc_auc(given: Predictions) -> float | None:
    # roc_auc_score(multi_class="ovr") is this mean, too, but takes probabilities only
    areas = [roc_auc_score(given.true == label, values) for label, values in given.rankings()]
    return float(np.mean(areas)) if areas else None


def _bounds(found: dict[str, Interval]) -> dict[str, float | None]:
    return {
        f"{metric}_{end}": bound
        for metric, ends in found.items()
        for end, bound in zip(("low", "high"), ends, strict=True)
    }


def _per_class(confusion: NDArray[np.int64], classes: NDArray[Any]) -> list[dict[str, Any]]:
    right, there, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        {
            "class": label,
            "precision": _share(right[i], said[i]),
            "recall": _share(right[i], there[i]),
            "f1": _share(2 * right[i], there[i] + said[i]),
            "n": int(there[i]),
        }
        for i, label in enumerate(classes.tolist())
    ]


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None
