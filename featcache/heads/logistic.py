"""Logistic regression that chooses its penalty and the scaling of the features by cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from threadpoolctl import threadpool_limits

from featcache.errors import TrainingError
from featcache.heads.logistic_path import Coordinates, Problem, draw_folds, losses_along, scored_rows
from featcache.heads.private import Interval, StrOptions
from featcache.heads.vector_head import LinearVectorHead, TrainingRows
from featcache.processor import cores

PATH = tuple(float(10.0 ** (half / 2)) for half in range(-8, 5))
"""Values of C that are tried, from the strongest penalty on: 0.0001 to 100, two for each power of ten."""

TRIED_SCALES = ("l2", "standard")
"""What "auto" chooses from. "none" differs from "l2" too little to pay for a third."""

FALLBACK_C = 0.01
"""Where there is nothing to choose C with: classes of one photo each."""

_MANY_ROWS, _FOLDS_OF_MANY = 1000, 3

_STEPS_BACK = 2
"""The best C differs little between scalings: the second path begins this far before that of the first."""

_TOLERANCE = 1e-7
"""Of the final fit, nats a row."""


class LogisticHead(LinearVectorHead):
    """Logistic regression with an L2 penalty, its strength and the scaling of the features chosen by data.

    For every scaling, regressions are fitted without one fold of the rows each, along a path of C from strong
    to weak penalties, each starting where the one before ended. The scaling and the C with the least mean
    log loss of the rows held out are used to fit all rows. The objective is that of scikit-learn's
    LogisticRegression, ``sum of log losses + |coefficients|^2 / (2 C)``, and the intercept is not penalized.

    Parameters
    ----------
    C : "auto" or float > 0, default "auto"
        Inverse of the strength of the penalty, of features whose mean variance is 1.
    scale : {"auto", "l2", "standard", "none"}, default "auto"
        "l2" divides every row by its length; "standard" every feature by
        ``sqrt(variance + mean variance of all features)``, which is the standard deviation for features that
        vary much and leaves those alone that hardly vary; "auto" chooses between these two.
    cv : int, default 5
        Folds of the cross-validation; at most 3 are used for 1,000 rows and more. Classes are spread evenly.
    pooling : {"flatten", "avg", "max"}, default "flatten"
        How (n, h, w, c) features become vectors; (n, c) features are taken as they are.
    pca : int, optional
        Use that many principal components of the scaled features; ``coef_`` are still those of all features.
    class_weight : None, "balanced" or dict of label to float, default None
        As in scikit-learn. It counts in the losses of held-out rows as well.
    max_iter : int, default 1000
        Most steps of the optimizer for one C.
    random_state : int, RandomState or None, default None
        Draws the folds.

    Attributes
    ----------
    classes_ : array of shape (k,)
        The labels, sorted.
    C_, scale_ : float, str
        What was chosen or given.
    losses_ : dict of str to array of shape (m,)
        By scaling the mean log loss of held-out rows, in nats, for the m values of ``Cs_``, NaN for those not
        tried; empty where nothing was chosen.
    Cs_ : array
        The values of C, from the smallest on.
    coef_ : array of shape (1, d) for two classes, else (k, d), float64
        Of the pooled features, with ``scale_`` "l2" of those divided by their length.
    intercept_ : array of shape (1,) or (k,), float64
    features_shape_ : tuple of int
        Shape of one image's features: (h, w, c) or (c,).
    n_features_in_ : int
        How many numbers that is.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "C": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "scale": [StrOptions({"auto", "l2", "standard", "none"})],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "pooling": [StrOptions({"flatten", "avg", "max"})],
        "pca": [Interval(Integral, 1, None, closed="left"), None],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        C: str | float = "auto",
        scale: str = "auto",
        cv: int = 5,
        pooling: str = "flatten",
        pca: int | None = None,
        class_weight: str | dict[Any, float] | None = None,
        max_iter: int = 1000,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.C = C
        self.scale = scale
        self.cv = cv
        self.pooling = pooling
        self.pca = pca
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Choose C and the scaling where they are "auto", and fit all rows.

        Parameters
        ----------
        X : array of shape (n, h, w, c) or (n, c)
        y : array of shape (n,)
        sample_weight : array of shape (n,), optional
        groups : array of shape (n,), optional
            Rows of one group, such as views of a photo, are never divided between folds.

        Raises
        ------
        ValueError
            A parameter is impossible, `X` holds NaN or infinity, or `y` has only one class.
        TrainingError
            The features have fewer components than `pca` asks for.
        """
        rows = self._take_training(X, y, sample_weight, groups, self.class_weight)
        self._refuse_pca(min(rows.vectors.shape))
        with threadpool_limits(1, "blas"):  # the products are small: further threads would mostly wait
            self._fit_rows(rows)
        return self

    def _fit_rows(self, rows: TrainingRows) -> None:
        self.Cs_ = np.array(PATH if self.C == "auto" else [float(self.C)])
        scales = TRIED_SCALES if self.scale == "auto" else (self.scale,)
        self.losses_: dict[str, NDArray[np.float64]] = {}
        found = self._chosen(rows, scales) if len(scales) * len(self.Cs_) > 1 else None
        if found is None:
            found = Coordinates.of(rows.vectors, scales[0], self.pca)
            self.C_ = FALLBACK_C if self.C == "auto" else float(self.C)
        self.scale_ = found[0].scale
        self._fit_all(*found, rows)

    @property
    def _unit_rows(self) -> bool:
        return bool(self.scale_ == "l2")

    def _refuse_pca(self, most: int) -> None:
        if self.pca is not None and self.pca > most:
            raise TrainingError(
                f"pca = {self.pca}, but the features have {most} components; take at most {most}"
            )

    def _chosen(
        self, rows: TrainingRows, scales: Sequence[str]
    ) -> tuple[Coordinates, NDArray[np.float32]] | None:
        """Set ``C_`` and return the coordinates of the least loss; None if there is nothing to choose by."""
        count = self.cv if len(rows.labels) < _MANY_ROWS else min(self.cv, _FOLDS_OF_MANY)
        folds = draw_folds(rows.labels, rows.groups, count, check_random_state(self.random_state))
        scored = scored_rows(rows.labels, rows.weights, folds)
        _warn_of_unscored(rows.labels, scored, self.classes_)
        if not scored.any():
            return None
        used = scored.any(axis=0)
        outside = (folds[:, None] != np.flatnonzero(used)) * rows.weights[:, None]
        best, lowest, first = None, np.inf, 0
        turned = Parallel(n_jobs=min(cores(), len(scales)), prefer="threads")(
            delayed(Coordinates.of)(rows.vectors, scale, self.pca) for scale in scales
        )
        for scale, found in zip(scales, turned, strict=True):
            problem = Problem(found[1], rows.labels, outside)
            some = losses_along(self.Cs_[first:], problem, scored[:, used], rows.labels, self.max_iter)
            losses = np.full(len(self.Cs_), np.nan)
            losses[first : first + len(some)] = some
            self.losses_[scale] = losses
            place = int(np.nanargmin(losses))
            if losses[place] < lowest:
                best, lowest, self.C_ = found, losses[place], float(self.Cs_[place])
            first = max(0, place - _STEPS_BACK)
        return best

    def _fit_all(self, found: Coordinates, coordinates: NDArray[np.float32], rows: TrainingRows) -> None:
        problem = Problem(coordinates, rows.labels, rows.weights[:, None])
        if not problem.solve(self.C_, _TOLERANCE, self.max_iter):
            warnings.warn(
                f"logistic regression did not converge in {self.max_iter} steps; raise max_iter",
                ConvergenceWarning,
                stacklevel=3,
            )
        solution = problem.solution[:, 0].T
        self.coef_, self.intercept_ = found.on_features(solution[:, :-1], solution[:, -1])


def _warn_of_unscored(labels: NDArray[np.int64], scored: NDArray[np.float64], classes: NDArray[Any]) -> None:
    """Say which classes had no part in choosing C."""
    unscored = np.setdiff1d(labels, labels[scored.any(axis=1)])
    if len(unscored) == 0:
        return
    names = ", ".join(repr(name) for name in classes[unscored[:5]].tolist())
    if scored.any():
        found = "C was chosen without them"
    else:
        found = f"C could not be chosen by cross-validation and is {FALLBACK_C:g} unless it is given"
    warnings.warn(
        f"too few photos in {len(unscored):,} of {len(classes):,} classes ({names}): {found}",
        UserWarning,
        stacklevel=4,
    )
