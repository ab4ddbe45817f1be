"""Cross-validated log loss of logistic regression along a path of penalties, from strong to weak."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from featcache.heads.vectors import unit_rows

_TOLERANCE = 1e-4
"""Of the fits of the path, nats a row: the loss of held-out rows does not change visibly below it."""

_WAIT, _WORTHWHILE = 2, 0.01
"""The path ends when so many penalties in a row did not lower the loss by this share of it."""

_SMALLEST_VARIANCE = 1e-5
"""Share of the largest variance below which a direction is rounding error."""


@dataclass(frozen=True)
class Coordinates:
    """Centred and scaled features, rotated to their principal axes.

    A rotation changes nothing: the penalty of logistic regression depends on the length of the coefficients
    only. But n rows in d dimensions have at most n axes, and along each of them the curvature of the loss is
    known, which `Problem` uses.

    Attributes
    ----------
    scale : {"standard", "l2", "none"}
    mean, spread : ndarray, shape (d,)
        What is subtracted from the features, and what they are divided by. With "standard" it is in
        proportion to ``sqrt(variance + mean variance of all features)``: the deviation alone would blow up
        features that hardly vary in few photos. Otherwise it is the same number for all. The mean variance of
        the divided features is 1, so C means the same with every scale.
    axes : ndarray, shape (d, r)
        Columns of length 1.
    """

    scale: str
    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    axes: NDArray[np.float32]

    @classmethod
    def of(
        cls, vectors: NDArray[Any], scale: str, components: int | None
    ) -> tuple[Coordinates, NDArray[np.float32]]:
        """Return the coordinates that vectors (n, d) have, and the vectors in them (n, r)."""
        rows = unit_rows(vectors) if scale == "l2" else vectors.astype(np.float32, copy=False)
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = rows - mean
        variance = np.einsum("ij,ij->j", centred, centred, dtype=np.float64) / len(rows)
        damped = variance + variance.mean() if scale == "standard" else np.ones_like(variance)
        damped = np.where(damped == 0, 1, damped)
        spread = np.sqrt(damped * ((variance / damped).mean() or 1)).astype(np.float32)
        centred /= spread
        axes = _axes(centred, components)
        return cls(scale, mean, spread, axes), centred if axes is None else centred @ axes

    def on_features(
        self, coef: NDArray[Any], intercept: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Turn coefficients (k, r) of the coordinates into those of the features (k, d)."""
        wide = coef @ self.axes.T.astype(np.float64) / self.spread
        return wide, intercept - wide @ self.mean.astype(np.float64)


def _axes(centred: NDArray[np.float32], components: int | None) -> NDArray[np.float32]:
    """Return principal axes of centred rows (n, d) as columns (d, r), from the eigenvectors of a product."""
    few_rows = len(centred) < centred.shape[1]
    product = centred @ centred.T if few_rows else centred.T @ centred
    # in single precision, which takes half the time: any rotation will do, if only nearly to the axes
    variances, vectors = eigh(product, driver="evd", overwrite_a=True, check_finite=False)
    kept = np.flatnonzero(variances > _SMALLEST_VARIANCE * variances[-1])[::-1][:components]
    vectors = vectors[:, kept]
    axes: NDArray[Any] = centred.T @ vectors / np.sqrt(variances[kept]) if few_rows else vectors
    return axes.astype(np.float32)


def draw_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64] | None, count: int, random: np.random.RandomState
) -> NDArray[np.int64]:
    """Assign rows to folds, classes spread evenly and no group divided.

    Parameters
    ----------
    labels : array of shape (n,)
    groups : array of shape (n,), or None
        None if every row is a group of its own.
    count : int
        Number of folds; fewer are drawn if no class has so many groups.
    random : RandomState

    Returns
    -------
    array of shape (n,)
        Numbers from 0; all are 0 if no class has two groups.
    """
    if groups is None or len(np.unique(groups)) == len(labels):
        groups, kind = np.arange(len(labels)), StratifiedKFold
    else:
        kind = StratifiedGroupKFold
    different = np.unique(np.stack([labels, groups]), axis=1)[0]
    count = min(count, int(np.bincount(different).max()))
    folds = np.zeros(len(labels), np.int64)
    if count < 2:
        return folds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes may have fewer rows than there are folds
        drawn = list(kind(count, shuffle=True, random_state=random).split(labels, labels, groups))
    for fold, (_, held_out) in enumerate(drawn):
        folds[held_out] = fold
    return folds


def scored_rows(
    labels: NDArray[np.int64], weights: NDArray[np.float64], folds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the weight with which each row is scored by the regression without each fold, (n, f).

    Only rows of the fold are scored, and of these only such whose class stands outside of it, too. A fold
    with fewer than two classes outside of it scores nothing.
    """
    scored = np.zeros((len(labels), int(folds.max()) + 1))
    for fold in range(scored.shape[1]):
        held_out = folds == fold
        known = np.unique(labels[~held_out & (weights > 0)])
        if len(known) > 1:
            scored[:, fold] = weights * (held_out & np.isin(labels, known))
    return scored


class Problem:
    """Penalized logistic regressions on the same rows, each with weights of its own, solved side by side.

    Their objective is scikit-learn's: ``sum(weight * log loss) + |coefficients|^2 / (2 C)``. Two classes have
    one column of coefficients, more have one each. All are one problem for L-BFGS, in variables that are
    divided by the square root of the expected curvature along each principal axis; this takes a tenth of
    the steps, and one product of matrices serves all.

    Parameters
    ----------
    rows : array of shape (n, r), float32
        In `Coordinates`.
    labels : array of shape (n,)
        Positions of the classes, from 0.
    weights : array of shape (n, f)
        Of each row in each of the regressions.
    """

    def __init__(
        self, rows: NDArray[np.float32], labels: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> None:
        classes = int(labels.max()) + 1
        self._rows, self._labels, self._weights = rows, labels, weights
        self._total = float(weights.sum())
        self._columns = 1 if classes == 2 else classes
        self._hits = np.eye(classes)[labels][:, None, :]
        self._variances = np.einsum("ij,ij->j", rows, rows, dtype=np.float64) / len(rows)
        self._shape = (rows.shape[1] + 1, weights.shape[1], self._columns)
        self.solution = np.zeros(self._shape)

    def solve(self, C: float, tolerance: float, max_iter: int) -> bool:
        """Go on from the solution so far to that of another C; return whether it was reached."""
        curvature = self._curvature()
        # the penalty spares the intercepts, which stand in the last row
        widths = np.append(curvature * self._variances + 1 / C, curvature)[:, None, None] ** -0.5
        penalty = np.append(np.full(len(self._variances), 1 / C), 0.0)[:, None, None]

        def objective(scaled: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            unknowns = scaled.reshape(self._shape) * widths
            loss, slope = self._loss(unknowns)
            value = loss + float((penalty * unknowns**2).sum()) / 2
            slope = (slope + penalty * unknowns) * widths
            return value / self._total, slope.ravel() / self._total

        options = {"maxiter": max_iter, "ftol": tolerance, "gtol": 1e-12}
        start = (self.solution / widths).ravel()
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        self.solution = found.x.reshape(self._shape) * widths
        return bool(found.nit < max_iter)

    def log_probabilities(self) -> NDArray[np.float64]:
        """Return those of all rows, by every regression and for all classes, (n, f, k)."""
        return self._log_probabilities(self.solution)

    def _log_probabilities(self, unknowns: NDArray[np.float64]) -> NDArray[np.float64]:
        columns = unknowns.reshape(len(unknowns), -1)
        values = self._rows @ columns[:-1].astype(np.float32) + columns[-1]
        values = values.reshape(len(values), *self._shape[1:])
        if self._columns == 1:
            values = np.concatenate([np.zeros_like(values), values], axis=2)
        logs: NDArray[np.float64] = log_softmax(values, axis=2)
        return logs

    def _loss(self, unknowns: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logs = self._log_probabilities(unknowns)
        loss = -float(((logs * self._hits).sum(axis=2) * self._weights).sum())
        errors = ((np.exp(logs) - self._hits) * self._weights[:, :, None])[:, :, -self._columns :]
        flat = errors.reshape(len(errors), -1)
        slope = np.vstack([self._rows.T @ flat.astype(np.float32), flat.sum(axis=0)])
        return loss, slope.reshape(self._shape)

    def _curvature(self) -> float:
        """Return the weighted sum of p (1 - p), the mean of the regressions and of the classes."""
        shares = np.exp(self.log_probabilities())
        spread = (shares * (1 - shares)).mean(axis=2) * self._weights
        mean = float(spread.sum() / self._weights.shape[1])
        return max(mean, 1e-3)


def losses_along(
    path: Iterable[float],
    problem: Problem,
    scored: NDArray[np.float64],
    labels: NDArray[np.int64],
    max_iter: int,
) -> NDArray[np.float64]:
    """Return the mean log loss of held-out rows for the values of C in `path`, from the smallest on.

    `scored` (n, f) holds the weights with which each of the problem's regressions is scored on each row.
    It ends where the loss has passed its minimum, so it may be shorter than the path.
    """
    losses: list[float] = []
    lowest, waited = np.inf, 0
    for C in path:
        problem.solve(C, _TOLERANCE, max_iter)
        of_labels = problem.log_probabilities()[np.arange(len(labels)), :, labels]
        losses.append(-float((of_labels * scored).sum() / scored.sum()))
        waited = 0 if losses[-1] < (1 - _WORTHWHILE) * lowest else waited + 1
        lowest = min(lowest, losses[-1])
        if waited == _WAIT:
            break
    return np.array(losses)
