"""Scores of a classifier, with the uncertainty of its accuracy; plain numbers, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score, roc_auc_score


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval in which the true share lies, for `successes` out of `n`.

    The score interval without continuity correction: Wilson, Probable inference, the law of succession,
    and statistical inference, JASA 22 (1927) 209–212; recommended by Brown, Cai and DasGupta, Interval
    estimation for a binomial proportion, Statistical Science 16 (2001) 101–133.

    Parameters
    ----------
    successes, n : int
        With ``0 <= successes <= n``; nothing tried tells nothing: ``n = 0`` gives (0.0, 1.0).
    confidence : float in (0, 1), default 0.95

    Raises
    ------
    ValueError
        The counts or the confidence are impossible.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes = {successes}, n = {n}: there must be 0 <= successes <= n")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence!r} must lie between 0 and 1")
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri((1 + confidence) / 2))
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    # at the ends the formula gives the share itself, but for rounding
    return float(min(max(low, 0.0), share)), float(max(min(high, 1.0), share))


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
        Decision values; they give the ROC AUC where there are no probabilities.

    Returns
    -------
    dict
        ``n``, ``accuracy``, ``accuracy_low`` and ``accuracy_high`` (Wilson, 95 %), ``balanced_accuracy``
        (mean recall of the classes in `y_true`), ``macro_f1`` (over the classes that are there or were
        predicted), ``log_loss`` (None without probabilities) and ``roc_auc`` (two classes: of the second one;
        more: mean of one against the rest; None where a class is missing in `y_true` or nothing ranks).

    Raises
    ------
    ValueError
        There are no rows, the lengths differ, or a label is none of `classes`.
    """
    y_true, predicted, classes = np.asarray(y_true), np.asarray(predicted), np.asarray(classes)
    _refuse_unfit(y_true, predicted, classes)
    low, high = wilson_interval(int((y_true == predicted).sum()), len(y_true))
    ranks = probabilities if probabilities is not None else decision
    return {
        "n": len(y_true),
        "accuracy": float(accuracy_score(y_true, predicted)),
        "accuracy_low": low,
        "accuracy_high": high,
        # balanced_accuracy_score gives the same number, and a warning for every class that only was predicted
        "balanced_accuracy": float(
            recall_score(y_true, predicted, labels=np.unique(y_true), average="macro", zero_division=0)
        ),
        "macro_f1": float(f1_score(y_true, predicted, average="macro", zero_division=0)),
        "log_loss": None if probabilities is None else float(log_loss(y_true, probabilities, labels=classes)),
        "roc_auc": None if ranks is None else _roc_auc(y_true, np.asarray(ranks), classes),
    }


def score_head(head: Any, X: Any, y: Any) -> dict[str, Any]:
    """Return the `scores` of a fitted classifier on features `X` and labels `y`.

    Raises
    ------
    ValueError
        As `scores` and the head's own ``predict`` do.
    """
    probabilities = head.predict_proba(X) if hasattr(head, "predict_proba") else None
    decision = None
    if probabilities is None and hasattr(head, "decision_function"):
        decision = head.decision_function(X)
    return scores(y, probabilities, head.predict(X), head.classes_, decision)


def _refuse_unfit(y_true: NDArray[Any], predicted: NDArray[Any], classes: NDArray[Any]) -> None:
    if not len(y_true):
        raise ValueError("there are no rows to score")
    if y_true.shape != predicted.shape:
        raise ValueError(
            f"{y_true.shape} labels and {predicted.shape} predictions: the shapes must be the same"
        )
    unknown = np.setdiff1d(y_true, classes)
    if len(unknown):
        raise ValueError(f"labels {unknown.tolist()[:5]} are none of the classes {classes.tolist()}")


def _roc_auc(y_true: NDArray[Any], ranks: NDArray[Any], classes: NDArray[Any]) -> float | None:
    if len(np.unique(y_true)) < max(2, len(classes)):
        return None
    if len(classes) == 2:
        positive = ranks if ranks.ndim == 1 else ranks[:, 1]
        return float(roc_auc_score(y_true == classes[1], positive))
    if ranks.shape != (len(y_true), len(classes)):  # SVC's one against one has a column per pair
        return None
    # roc_auc_score(multi_class="ovr") takes this mean too, but of probabilities only
    columns = zip(classes, ranks.T, strict=True)
    return float(np.mean([roc_auc_score(y_true == label, column) for label, column in columns]))
