"""Make a head's probabilities honest: temperature scaling on validation data."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from featcache.errors import TrainingError
from featcache.evaluation.scoring import decides_by_pairs
from featcache.heads.dense.head import DenseHead

_LOG_BOUND = 10.0
"""Temperatures lie between exp(-10) and exp(10), as in scikit-learn."""

_FOLDS = 2
"""scikit-learn predicts in folds, each with every class; a frozen head gives the same in any number."""


def calibrated(head: Any, X: Any, y: Any, sample_weight: Any = None) -> Any:
    """Return the head with probabilities that are right as often as they say.

    Logits are divided by the one temperature that gives the least log loss on `X` and `y`: Guo, Pleiss, Sun
    and Weinberger, On calibration of modern neural networks, ICML 2017, section 4.2. The most probable
    label stays the same. The data must be other than those the head was trained on, and scores on them
    are flattered afterwards.

    Parameters
    ----------
    head : DenseHead or scikit-learn classifier
        Fitted; it is not changed.
    X : array of shape (n, h, w, c) or (n, c)
        Validation features.
    y : array of shape (n,)
        Their labels, at least two of each class.
    sample_weight : array of shape (n,), optional
        The log loss is the mean weighted with it.

    Returns
    -------
    DenseHead or sklearn.calibration.CalibratedClassifierCV
        Of a `DenseHead` a copy whose last kernel and bias are divided by the temperature, which it has as
        ``temperature_``; of other classifiers a wrapper of scikit-learn's, which has ``predict_proba`` also
        where the head has only ``decision_function``, and predicts the most probable label also where the
        head goes by something else (NearestCentroid, tied votes of an SVC).

    Raises
    ------
    TrainingError
        A class has fewer than two rows, a label is unknown, the head gives nothing to scale, no temperature
        is best because the head is right about every row or no better than guessing, or scikit-learn is
        older than 1.8.
    ValueError
        The head refuses `X`.
    """
    labels = _positions(head, X, y)
    if isinstance(head, DenseHead):
        weights = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        return _calibrated_dense(head, X, labels, weights)
    return _calibrated_by_sklearn(head, X, labels, sample_weight)


def _positions(head: Any, X: Any, y: Any) -> NDArray[np.intp]:
    """Return the labels as positions in the head's classes."""
    y = np.asarray(y)
    if y.shape != (len(X),):
        raise TrainingError(
            f"{len(X)} rows of features and labels of shape {y.shape}: give one label per row"
        )
    unknown = np.setdiff1d(y, head.classes_)
    if len(unknown):
        raise TrainingError(
            f"labels {unknown.tolist()[:5]} are none of the head's classes {head.classes_.tolist()}: "
            "calibrate it on data of the classes it was trained on"
        )
    labels: NDArray[np.intp] = np.searchsorted(head.classes_, y)
    rows = np.bincount(labels, minlength=len(head.classes_))
    if rows.min() < _FOLDS:
        rarest = head.classes_.tolist()[rows.argmin()]
        raise TrainingError(
            f"class {rarest!r} has {rows.min()} validation rows; calibration needs {_FOLDS} or more "
            "of every class: give it more validation data"
        )
    return labels


def _calibrated_dense(
    head: DenseHead, X: Any, labels: NDArray[np.intp], weights: NDArray[np.float64]
) -> DenseHead:
    logits = head.decision_function(X).astype(np.float64)
    if logits.ndim == 1:
        logits = np.stack([np.zeros_like(logits), logits], axis=1)
    result = copy.copy(head)
    result.temperature_ = _best_temperature(logits, labels, weights)
    result.coefs_ = [*head.coefs_[:-1], head.coefs_[-1] / np.float32(result.temperature_)]
    result.intercepts_ = [*head.intercepts_[:-1], head.intercepts_[-1] / np.float32(result.temperature_)]
    return result


def _best_temperature(
    logits: NDArray[np.float64], labels: NDArray[np.intp], weights: NDArray[np.float64]
) -> float:
    """Return the temperature with the least log loss, for logits (n, k) and weights (n,)."""
    margins = logits - logits[np.arange(len(labels)), labels, None]
    # The log loss is convex in 1 / temperature; its slope goes from mean(margins) at 0 to mean(max(margins)).
    if margins.max() <= 0:
        raise _endless("right about every validation row")
    if np.average(margins.mean(axis=1), weights=weights) >= 0:
        raise _endless("no better than guessing")

    def loss(log_inverse: float) -> float:
        return float(np.average(logsumexp(np.exp(log_inverse) * margins, axis=1), weights=weights))

    found = minimize_scalar(loss, bounds=(-_LOG_BOUND, _LOG_BOUND), method="bounded")
    return float(np.exp(-found.x))


def _endless(why: str) -> TrainingError:
    return TrainingError(
        f"the head is {why}, so that no temperature is the best one: "
        "calibrate it on more validation data, or use it as it is"
    )


def _calibrated_by_sklearn(head: Any, X: Any, labels: NDArray[np.intp], sample_weight: Any) -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    from featcache.heads.private import InvalidParameterError

    _refuse_unscalable(head)
    if (head.predict(X) == head.classes_[labels]).all():
        raise _endless("right about every validation row")
    wrapper = CalibratedClassifierCV(FrozenEstimator(head), method="temperature", cv=_FOLDS)
    try:
        with warnings.catch_warnings():
            # the frozen head takes no weights, and needs none
            warnings.filterwarnings("ignore", "Since FrozenEstimator does not appear to accept sample_weight")
            # Temperature scaling takes integer labels for positions, even where they are not.
            wrapper.fit(X, labels, sample_weight=sample_weight)
    except InvalidParameterError as error:
        raise TrainingError(
            "temperature scaling of scikit-learn's classifiers needs scikit-learn 1.8 or later: "
            "update it (pip install --upgrade scikit-learn), or calibrate a dense head"
        ) from error
    (fitted,) = wrapper.calibrated_classifiers_
    if np.log(fitted.calibrators[0].beta_) < 0.99 * -_LOG_BOUND:
        raise _endless("no better than guessing")
    wrapper.classes_ = fitted.classes = head.classes_
    return wrapper


def _refuse_unscalable(head: Any) -> None:
    if not hasattr(head, "predict_proba") and not hasattr(head, "decision_function"):
        raise TrainingError(
            "the head has neither probabilities nor decision values, so there is nothing to calibrate: "
            "choose another classifier, for example LogisticRegression"
        )
    if decides_by_pairs(head):
        raise TrainingError(
            "the head has decision values for pairs of classes, which cannot be scaled: "
            "set decision_function_shape = 'ovr'"
        )
