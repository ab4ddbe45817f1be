"""Two simple classifiers to compare others with: nearest centroid and nearest neighbors, with probabilities.

Both compare features by angle: rows are divided by their length. scikit-learn's classifiers of these names
give probabilities near 0 and 1 in a thousand dimensions; here they are fitted on rows left out in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from featcache.heads.private import Interval, StrOptions
from featcache.heads.vector_head import LinearVectorHead, TrainingRows, VectorHead
from featcache.heads.vectors import unit_rows

_LOG_BOUND = 15.0
"""The sharpness of a nearest centroid lies between exp(-15) and exp(15)."""

NEIGHBORS = (1, 2, 3, 5, 10, 20, 50, 100)
"""Numbers of neighbors that are tried."""

_BLOCK_ROWS = 1024
"""Rows that are compared with all training rows at once."""


class NearestCentroidHead(LinearVectorHead):
    """The class whose mean is nearest, with probabilities: a softmax of squared distances.

    Rows and class means are of length 1, so it is a linear classifier. The logits are
    ``-sharpness_ * |x - mean|^2`` with the sharpness that gives the least log loss on the training rows,
    each compared with the means of the other rows.

    Parameters
    ----------
    pooling : {"flatten", "avg", "max"}, default "flatten"
        How (n, h, w, c) features become vectors; (n, c) features are taken as they are.

    Attributes
    ----------
    classes_ : array of shape (k,)
    centroids_ : array of shape (k, d), float64
        Mean of the class's rows of length 1.
    sharpness_ : float
    coef_, intercept_ : array of shape (1, d) and (1,) for two classes, else (k, d) and (k,), float64
        Of rows of length 1.
    features_shape_, n_features_in_ : tuple of int, int
        As those of `featcache.heads.logistic.LogisticHead`.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "pooling": [StrOptions({"flatten", "avg", "max"})]
    }

    def __init__(self, *, pooling: str = "flatten") -> None:
        self.pooling = pooling

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Compute the class means and the sharpness; rows of one group are left out together.

        Raises
        ------
        ValueError
            `X` holds NaN or infinity, `y` has only one class, or a class has no weight.
        """
        rows = self._take_training(X, y, sample_weight, groups)
        units = unit_rows(rows.vectors).astype(np.float64)
        hits = np.eye(len(self.classes_))[rows.labels]
        sums = (hits * rows.weights[:, None]).T @ units
        masses = np.bincount(rows.labels, rows.weights).astype(np.float64)
        if not masses.all():
            raise ValueError(f"class {self.classes_[masses.argmin()]!r} has sample weights of 0 only")
        self.centroids_ = sums / masses[:, None]
        self.sharpness_ = _sharpness(_distances_left_out(units, rows, sums, masses), rows)
        values = 2 * self.sharpness_ * self.centroids_
        offsets = -self.sharpness_ * (self.centroids_**2).sum(axis=1)
        two = len(self.classes_) == 2
        self.coef_ = values[1:] - values[:1] if two else values
        self.intercept_ = offsets[1:] - offsets[:1] if two else offsets
        return self

    @property
    def _unit_rows(self) -> bool:
        return True


def _distances_left_out(
    units: NDArray[np.float64], rows: TrainingRows, sums: NDArray[np.float64], masses: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return squared distances (n, k) to class means without the row's group; NaN where nothing is left."""
    groups = np.arange(len(units)) if rows.groups is None else rows.groups
    pairs, own = np.unique(np.stack([groups, rows.labels]), axis=1, return_inverse=True)
    own = own.reshape(-1)
    part = np.zeros((pairs.shape[1], units.shape[1]))
    np.add.at(part, own, units * rows.weights[:, None])
    rest = masses[rows.labels] - np.bincount(own, rows.weights)[own]
    means = sums / masses[:, None]
    distances: NDArray[np.float64] = (means**2).sum(axis=1) - 2 * units @ means.T + 1
    without = (sums[rows.labels] - part[own]) / np.where(rest > 1e-9, rest, np.nan)[:, None]
    distances[np.arange(len(units)), rows.labels] = ((units - without) ** 2).sum(axis=1)
    return distances


def _sharpness(distances: NDArray[np.float64], rows: TrainingRows) -> float:
    """Return the factor of least log loss; 1 where no class has two rows.

    One more row is counted, wrong by the mean margin, as in Laplace's rule of succession: if all rows are
    right, the loss would otherwise fall forever.
    """
    usable = np.isfinite(distances).all(axis=1) & (rows.weights > 0)
    if not usable.any():
        return 1.0
    margins = distances[usable, rows.labels[usable], None] - distances[usable]
    weights = rows.weights[usable]
    wrong = np.abs(np.sort(margins, axis=1)[:, -2:]).max(axis=1) @ weights / weights.sum()

    def loss(log_factor: float) -> float:
        factor = np.exp(log_factor)
        return float(logsumexp(factor * margins, axis=1) @ weights + np.logaddexp(0, factor * wrong))

    return float(np.exp(minimize_scalar(loss, bounds=(-_LOG_BOUND, _LOG_BOUND), method="bounded").x))


class NearestNeighborsHead(VectorHead):
    """Votes of the training rows at the smallest angles, with probabilities that are never 0.

    A class's probability is ``(votes + 1 / k) / (neighbors + 1)``: the votes and one more, divided among
    the k classes.

    Parameters
    ----------
    n_neighbors : "auto" or int, default "auto"
        "auto" takes that of 1, 2, 3, 5, 10, 20, 50 and 100 with the least log loss on the training rows, each
        without its own vote.
    pooling : {"flatten", "avg", "max"}, default "flatten"
        How (n, h, w, c) features become vectors; (n, c) features are taken as they are.

    Attributes
    ----------
    classes_ : array of shape (k,)
    n_neighbors_ : int
    vectors_ : array of shape (n, d), float16
        The training rows, of length 1: 2.5 kB for one of 1,280 features. They are saved with the head.
    votes_ : array of shape (n, k), float32
        Each row's weight in the column of its class.
    features_shape_, n_features_in_ : tuple of int, int
        As those of `featcache.heads.logistic.LogisticHead`.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_neighbors": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "pooling": [StrOptions({"flatten", "avg", "max"})],
    }

    def __init__(self, *, n_neighbors: str | int = "auto", pooling: str = "flatten") -> None:
        self.n_neighbors = n_neighbors
        self.pooling = pooling

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Keep the rows and choose the number of neighbors; rows of one group give each other no votes.

        Raises
        ------
        ValueError
            `X` holds NaN or infinity, or `y` has only one class.
        """
        rows = self._take_training(X, y, sample_weight, groups)
        self.vectors_ = unit_rows(rows.vectors).astype(np.float16)
        weights = rows.weights * len(rows.weights) / max(rows.weights.sum(), 1e-300)
        self.votes_ = (np.eye(len(self.classes_))[rows.labels] * weights[:, None]).astype(np.float32)
        if self.n_neighbors == "auto":
            self.n_neighbors_ = self._least_loss(rows)
        else:
            self.n_neighbors_ = min(int(self.n_neighbors), len(self.vectors_))
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the classes' probabilities, (n, k), columns as in ``classes_``."""
        units = unit_rows(self._vectors(X))
        found = [
            self._shares(near, [self.n_neighbors_])[0] for near in self._nearest(units, self.n_neighbors_)
        ]
        return np.concatenate(found)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of every row, (n,)."""
        labels: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels

    def _nearest(
        self, units: NDArray[np.float32], count: int, groups: NDArray[Any] | None = None
    ) -> Iterator[NDArray[np.intp]]:
        """Yield in blocks the training rows nearest to rows (n, d), nearest first; none of the same group."""
        training = self.vectors_.astype(np.float32)
        for first in range(0, len(units), _BLOCK_ROWS):
            cosines = units[first : first + _BLOCK_ROWS] @ training.T
            if groups is not None:
                cosines[groups[first : first + _BLOCK_ROWS, None] == groups] = -2
            near = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
            order = np.argsort(-np.take_along_axis(cosines, near, axis=1), axis=1, kind="stable")
            yield np.take_along_axis(near, order, axis=1)

    def _shares(self, near: NDArray[np.intp], counts: list[int]) -> list[NDArray[np.float64]]:
        """Return the probabilities that the first so many neighbors give, for each of the counts."""
        votes = self.votes_[near].astype(np.float64).cumsum(axis=1)
        smooth = [votes[:, count - 1] + 1 / votes.shape[2] for count in counts]
        return [some / some.sum(axis=1, keepdims=True) for some in smooth]

    def _least_loss(self, rows: TrainingRows) -> int:
        groups = np.arange(len(rows.labels)) if rows.groups is None else rows.groups
        others = len(groups) - int(np.bincount(groups).max())
        counts = [count for count in NEIGHBORS if count <= others]
        if not counts:
            return 1
        losses = np.zeros(len(counts))
        first = 0
        for near in self._nearest(unit_rows(rows.vectors), counts[-1], groups):
            block = slice(first, first + len(near))
            for place, shares in enumerate(self._shares(near, counts)):
                right = shares[np.arange(len(near)), rows.labels[block]]
                losses[place] -= np.log(right) @ rows.weights[block]
            first += len(near)
        return counts[int(losses.argmin())]
