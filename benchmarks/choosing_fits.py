"""Fits all candidate heads on one draw of photos, each once per fold, and scores them for every rule."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from benchmarks.choosing_rules import HeadScores, Scores
from benchmarks.sets import FeatureSet
from featcache.evaluation.folds import HeldOut
from featcache.evaluation.predictions import Predictions
from featcache.evaluation.scoring import predictions_of
from featcache.heads.dense.head import DenseHead

FOLDS = 5
_INNER_FOLDS = 3  # of heads that choose or calibrate for themselves

_VALIDATION = 0.2
_FEWEST = 7  # of a class in a pool: five folds, and folds within their rest
_MOST_TEST = 1500


def _logistic(C: float) -> Any:
    return make_pipeline(StandardScaler(), Span(), LogisticRegression(C=C, max_iter=1000))


class Span(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Rotates rows into the space that the training rows span, where that has fewer dimensions.

    A logistic regression with an L2 penalty is the same there, and fitted in a fraction of the time.
    """

    def fit(self, X: NDArray[Any], y: Any = None) -> Span:
        """Find the axes."""
        n, d = X.shape
        self.axes_ = np.linalg.svd(X, full_matrices=False)[2].T if 2 * n < d else None
        return self

    def transform(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return the rows along the axes."""
        return X if self.axes_ is None else np.asarray(X @ self.axes_)


def _of_one_length(X: NDArray[Any]) -> NDArray[Any]:
    """Return rows with a mean square of 1: L2-normalised, at the scale of standardised features."""
    return np.asarray(X / np.sqrt(np.square(X).mean(axis=1, keepdims=True)))


def _tuned(scaling: Any, Cs: NDArray[np.float64]) -> Any:
    """Return a logistic regression whose C is chosen by cross-validated log loss."""
    path = LogisticRegressionCV(
        Cs=Cs,
        l1_ratios=(0,),
        cv=_INNER_FOLDS,
        scoring="neg_log_loss",
        max_iter=300,
        tol=1e-3,
        use_legacy_attributes=False,
    )
    return make_pipeline(scaling, Span(), path)


def _dense(*units: int, dropout: float = 0.0) -> DenseHead:
    """Return a head that trains for 20 epochs, whatever its validation loss does."""
    return DenseHead(units, dropout=dropout, epochs=20, early_stopping=False, random_state=0)


CANDIDATES: dict[str, Callable[[], Any]] = {
    "logistic-cv": lambda: _tuned(StandardScaler(), np.logspace(-4, 0, 5)),
    "logistic-cv-l2": lambda: _tuned(FunctionTransformer(_of_one_length), np.logspace(-3, 1, 5)),
    "logistic-C0.1": lambda: _logistic(0.1),
    "linear": lambda: _dense(),
    "dense-256": lambda: _dense(256, dropout=0.5),
    "logistic-C0.001": lambda: _logistic(0.001),
    "logistic-C10": lambda: _logistic(10),
    "svc": lambda: make_pipeline(
        StandardScaler(), CalibratedClassifierCV(SVC(), cv=_INNER_FOLDS, ensemble=False)
    ),
    "forest": lambda: RandomForestClassifier(50, random_state=0),
    "lda": lambda: LinearDiscriminantAnalysis(),
    "knn": lambda: make_pipeline(StandardScaler(), KNeighborsClassifier()),
}
"""Heads to choose from, as people have them in a run; the first is a default head."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Numbers of the rows of a draw, by split."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    @property
    def learned(self) -> NDArray[np.int64]:
        """Train and validation."""
        return np.concatenate([self.train, self.validation])


def draw_rows(y: NDArray[np.int64], photos: int, seed: int) -> Rows:
    """Draw a pool of `photos` rows and divide it as featcache does by default; the others are for test.

    Every photo of the pool is in validation with a probability of 0.2. Pools with fewer than 7 photos of a
    class, or fewer than 5 in train, are drawn again.

    Raises
    ------
    ValueError
        No such pool was found.
    """
    random = np.random.default_rng([seed, photos])
    classes = int(y.max()) + 1
    for _ in range(1000):
        order = random.permutation(len(y))
        pool = order[:photos]
        held_out = random.random(photos) < _VALIDATION
        rows = Rows(pool[~held_out], pool[held_out], order[photos:][:_MOST_TEST])
        whole, train = (np.bincount(y[one], minlength=classes).min() for one in (pool, rows.train))
        if whole >= _FEWEST and train >= FOLDS and len(rows.validation):
            return rows
    raise ValueError(f"{photos} photos are too few for {classes} classes")


def score_heads(found: FeatureSet, rows: Rows, repeats: int, seed: int) -> dict[str, HeadScores]:
    """Fit every candidate and return its scores.

    Parameters
    ----------
    found : FeatureSet
    rows : Rows
    repeats : int
        Repetitions of the cross-validation on train and validation.
    seed : int
        Of the folds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return {name: _score(make, found, rows, repeats, seed) for name, make in CANDIDATES.items()}


def _score(make: Callable[[], Any], found: FeatureSet, rows: Rows, repeats: int, seed: int) -> HeadScores:
    X, y = found.X, found.y
    trained = make().fit(X[rows.train], y[rows.train])
    refitted = make().fit(X[rows.learned], y[rows.learned])
    return HeadScores(
        _scores(trained, X[rows.validation], y[rows.validation]),
        tuple(_cross_validated(make, X[rows.learned], y[rows.learned], seed + i) for i in range(repeats)),
        _without_rows(_scores(trained, X[rows.test], y[rows.test])),
        _without_rows(_scores(refitted, X[rows.test], y[rows.test])),
    )


def _cross_validated(make: Callable[[], Any], X: NDArray[Any], y: NDArray[np.int64], seed: int) -> Scores:
    folds = np.empty(len(y), np.int64)
    divided = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(X, y)
    for fold, (_, held_out) in enumerate(divided):
        folds[held_out] = fold
    head = make()
    if isinstance(head, DenseHead):
        fitted: list[Any] = head.fit_folds(X, y, folds)
    else:
        fitted = [make().fit(X[folds != fold], y[folds != fold]) for fold in range(FOLDS)]
    held = HeldOut.of(fitted, X, folds)
    return _of(Predictions.of(y, held.probabilities, held.predicted, held.classes))


def _scores(head: Any, X: NDArray[Any], y: NDArray[np.int64]) -> Scores:
    return _of(Predictions.of(*predictions_of(head, X, y)))


def _of(predictions: Predictions) -> Scores:
    return Scores.of(predictions.true == predictions.predicted, predictions.losses())


def _without_rows(scores: Scores) -> Scores:
    return Scores(scores.accuracy, scores.log_loss)
