"""How far features are from those of the known classes, as a p-value: small for photos of none of them.

The distance is Mahalanobis's to the nearest class mean, with one covariance for all classes, of features of
length 1: Lee et al., A simple unified framework for detecting out-of-distribution samples and adversarial
attacks, NeurIPS 2018; with the lengths made equal: Mueller and Hein, Mahalanobis++, ICML 2025
(arXiv:2505.18032). The covariance is shrunk to a few directions of their own variance and one variance for
all others: Tipping and Bishop, Probabilistic principal component analysis, JRSS B 61 (1999). So a model stays
small, and the distance separates better than with the whole covariance (see ``docs/novelty.md``).

The p-value is split conformal prediction's: Vovk, Gammerman and Shafer, Algorithmic learning in a random
world (2005), with distances of photos that the means and the covariance were not fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

DEFAULT_LEVEL = 0.05
"""The level for which p-values are given where none is asked for."""

_MOST_DIRECTIONS = 64
_PHOTOS_PER_DIRECTION = 4
# of the subspace iteration: Halko, Martinsson and Tropp, SIAM Review 53 (2011), algorithm 4.4
_ITERATIONS, _OVERSAMPLING = 2, 16

# Of squared distances between vectors of length 1; photos that are all equal differ by this at most.
_ROUNDING = 1e-6

# Of a direction: what rounding gives where all photos are equal.
_NO_VARIANCE = 1e-12

# Many folds, since a fit on fewer photos gives larger distances; fewer for many photos, as it takes longer.
_FEWEST_FOLDS, _MOST_FOLDS, _FITTED_ROWS = 5, 20, 30_000


Steps = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Distances and p-values."""


class _Fit(NamedTuple):
    """Class means and directions.

    The distance of x from a mean is ``|x - mean|² - |factor (x - mean)|²``, which is Mahalanobis's squared,
    times the variance of the directions that are not in `factor`.
    """

    labels: NDArray[np.int64]
    means: NDArray[Any]
    factor: NDArray[Any]

    def distances(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """Return the squared distances of vectors (n, d) of length 1 from the class means, (n, k)."""
        rows, means, factor = (np.asarray(one, np.float64) for one in (vectors, self.means, self.factor))
        found = _squared_distances(rows, means) - _squared_distances(rows @ factor.T, means @ factor.T)
        return np.asarray(np.maximum(found, 0.0))


@dataclass(frozen=True, eq=False)
class Novelty:
    """What tells photos of the known classes from others.

    Attributes
    ----------
    labels : int64 array of shape (k,)
        The classes that have photos, as positions in the model's classes.
    means : float32 array of shape (k, d)
        Of their features, each of length 1.
    factor : float32 array of shape (r, d)
        The directions in which photos of a class differ most, see ``docs/novelty.md``.
    scores : float64 array of shape (n,)
        Distances of photos from the nearest class mean, each found without the photo.
    nearest : int64 array of shape (n,)
        Which of the k classes that was.
    """

    labels: NDArray[np.int64]
    means: NDArray[np.float32]
    factor: NDArray[np.float32]
    scores: NDArray[np.float64]
    nearest: NDArray[np.int64]

    @classmethod
    def fit(
        cls, features: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any] | None = None, seed: int = 0
    ) -> Self:
        """Learn the known classes.

        Parameters
        ----------
        features : array of shape (n, c) or (n, h, w, c)
            The latter are averaged over height and width.
        labels : int array of shape (n,)
        groups : int array of shape (n,), optional
            Photos of one group are never on two sides of a fold; by default each is a group by itself.
        seed : int
            Of the folds.

        Raises
        ------
        ValueError
            No class has photos of two groups, so that no photo can be compared with others of its class; or a
            number is not finite.
        """
        vectors = unit_vectors(features)
        labels = np.asarray(labels, np.int64)
        groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
        scores, nearest = _held_out(vectors, labels, _folds(labels, groups, seed))
        if not len(scores):
            raise ValueError("no class has two photos of different groups")
        return cls(*_fit(vectors, labels), scores, nearest)

    @property
    def smallest(self) -> float:
        """The smallest p-value that there can be: 1 / (n + 1)."""
        return 1 / (len(self.scores) + 1)

    def distances(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Return the squared distances of features (n, ...) from the class means, (n, k).

        Raises
        ------
        ValueError
            The features have another number of channels, or a number is not finite.
        """
        vectors = unit_vectors(features)
        if vectors.shape[1] != self.means.shape[1]:
            raise ValueError(f"{vectors.shape[1]} channels; the class means have {self.means.shape[1]}")
        return self._fit.distances(vectors)

    def p_values(self, features: NDArray[Any], level: float = DEFAULT_LEVEL) -> NDArray[np.float64]:
        """Return the share of photos of known classes that are at least as far away, (n,).

        Of photos of known classes, a share of about `level` gets a p-value below `level`.

        Parameters
        ----------
        features : array of shape (n, c) or (n, h, w, c)
        level : float, default 0.05
            A photo is compared with those of its nearest class. Where these are fewer than ``1 / level - 1``,
            whose p-values cannot be so small, it is compared with all.
        """
        distances = self.distances(features)
        nearest, scores = distances.argmin(axis=1), distances.min(axis=1)
        steps, found = self.steps(level), np.empty(len(scores))
        for place in np.unique(nearest):
            rows = nearest == place
            found[rows] = np.interp(scores[rows], *steps[place])
        return found

    def pooled_classes(self, level: float) -> list[int]:
        """Return the classes, as positions in the model's, that have too few photos for `level`."""
        return [int(label) for label in self.labels[self._pooled(level)]]

    def _pooled(self, level: float) -> list[int]:
        photos = np.bincount(self.nearest, minlength=len(self.labels))
        return [int(place) for place in np.flatnonzero((photos + 1) * level < 1 - 1e-9)]

    def steps(self, level: float = DEFAULT_LEVEL) -> list[Steps]:
        """Return for each of the k classes the distances, ascending, and the p-values that belong to them.

        Between them is interpolated.
        """
        if level not in self._steps:
            pooled, of_all = set(self._pooled(level)), _steps(self.scores)
            self._steps[level] = [
                of_all if place in pooled else _steps(self.scores[self.nearest == place])
                for place in range(len(self.labels))
            ]
        return self._steps[level]

    @cached_property
    def _steps(self) -> dict[float, list[Steps]]:
        return {}

    @cached_property
    def _fit(self) -> _Fit:
        return _Fit(self.labels, self.means.astype(np.float64), self.factor.astype(np.float64))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that `from_arrays` takes."""
        names = ("labels", "means", "factor", "scores", "nearest")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], classes: int, channels: int) -> Self:
        """Return what `to_arrays` gave, of a model with so many classes and channels of features.

        Raises
        ------
        KeyError, ValueError
            An array is missing, has another shape or dtype, or holds what cannot be.
        """
        found = {name: arrays[name] for name in ("labels", "means", "factor", "scores", "nearest")}
        k, n, r = len(found["labels"]), len(found["scores"]), len(found["factor"])
        expected = {
            "labels": (np.int64, (k,)),
            "means": (np.float32, (k, channels)),
            "factor": (np.float32, (r, channels)),
            "scores": (np.float64, (n,)),
            "nearest": (np.int64, (n,)),
        }
        for name, (dtype, shape) in expected.items():
            array = found[name]
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape} and type {array.dtype} in place of {shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} is not finite")
        if not (n and k) or len(np.unique(found["labels"])) != k:
            raise ValueError("it has no classes or photos, or a class twice")
        for name, below in (("labels", classes), ("nearest", k)):
            if not 0 <= found[name].min() <= found[name].max() < below:
                raise ValueError(f"{name} holds numbers beyond 0 to {below - 1}")
        return cls(**found)


def unit_vectors(features: NDArray[Any]) -> NDArray[np.float32]:
    """Return features (n, c) or (n, h, w, c), averaged over height and width, as vectors of length 1.

    A vector of zeros stays one.

    Raises
    ------
    ValueError
        They have another number of axes, or a number is not finite.
    """
    features = np.asarray(features)
    if features.ndim not in (2, 4):
        raise ValueError(f"features of shape {features.shape}; (n, c) and (n, h, w, c) are allowed")
    vectors = features.astype(np.float64) if features.ndim == 2 else features.mean((1, 2), np.float64)
    if not np.isfinite(vectors).all():
        raise ValueError("features contain NaN or infinity")
    # divided by the largest first: squares of very small or large numbers are 0 or infinite
    vectors = vectors / _positive(np.abs(vectors).max(axis=1, keepdims=True, initial=0.0))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / _positive(lengths), np.float32)


def _positive(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(numbers > 0, numbers, 1.0)


def _squared_distances(rows: NDArray[Any], means: NDArray[Any]) -> NDArray[Any]:
    squares = (rows**2).sum(axis=1)[:, None] + (means**2).sum(axis=1)
    return np.asarray(squares - 2 * rows @ means.T)


def _fit(vectors: NDArray[np.float32], labels: NDArray[np.int64]) -> _Fit:
    order = np.argsort(labels, kind="stable")
    known, first, places, counts = np.unique(labels[order], True, True, True)
    vectors = vectors[order]
    means = (np.add.reduceat(vectors, first, dtype=np.float64) / counts[:, None]).astype(np.float32)
    return _Fit(known, means, _factor(vectors - means[places], len(known)))


def _factor(deviations: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """Return the largest principal directions (r, d), each times ``sqrt(1 - rest / own variance)``.

    All other directions are given one variance, the mean of theirs.
    """
    n, d = deviations.shape
    rank = min(_MOST_DIRECTIONS, (n - classes) // _PHOTOS_PER_DIRECTION, d - 1)
    if rank < 1:
        return np.zeros((0, d), np.float32)
    size = min(rank + _OVERSAMPLING, d)
    basis = np.random.default_rng(0).standard_normal((d, size), np.float32)
    for _ in range(_ITERATIONS):
        basis = np.linalg.qr(deviations.T @ (deviations @ basis))[0]
    projected = (deviations @ basis).astype(np.float64)
    variances, axes = np.linalg.eigh(projected.T @ projected / n)
    variances, axes = variances[::-1][:rank], axes[:, ::-1][:, :rank]
    total = float(np.square(deviations).sum(dtype=np.float64)) / n
    rest = max(_NO_VARIANCE, (total - float(variances.sum())) / (d - rank))
    shares = 1 - rest / np.maximum(variances, rest)
    return np.asarray((basis @ axes * np.sqrt(shares)).T, np.float32)


def _folds(labels: NDArray[np.int64], groups: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """Assign rows to folds: groups as wholes, and those of each class (of their first row) spread evenly."""
    first, of_group = np.unique(groups, return_index=True, return_inverse=True)[1:]
    count = int(np.clip(_FITTED_ROWS // max(len(labels), 1), _FEWEST_FOLDS, _MOST_FOLDS))
    drawn = np.random.default_rng(seed).permutation(len(first))
    drawn = drawn[np.argsort(labels[first[drawn]], kind="stable")]
    fold = np.empty(len(first), np.int64)
    fold[drawn] = np.arange(len(first)) % count
    return fold[of_group]


def _held_out(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], folds: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the distance of every row from the nearest class mean, fitted without its fold, and the class.

    Rows whose class has no other rows then are left out: for that fit they are of an unknown class.
    """
    known = np.unique(labels)
    scores, nearest = np.full(len(labels), np.nan), np.zeros(len(labels), np.int64)
    for fold in np.unique(folds):
        rest = folds != fold
        rows = np.flatnonzero(~rest & np.isin(labels, labels[rest]))
        if len(rows):
            fit = _fit(vectors[rest], labels[rest])
            distances = fit.distances(vectors[rows])
            scores[rows] = distances.min(axis=1)
            nearest[rows] = np.searchsorted(known, fit.labels[distances.argmin(axis=1)])
    found = np.isfinite(scores)
    return scores[found], nearest[found]


def _steps(calibration: NDArray[np.float64]) -> Steps:
    """Return the different scores and, for each, the share of rows at least as far, counting one row more.

    The last one is beyond all rows, by more than distances are rounded.
    """
    values, counts = np.unique(calibration, return_counts=True)
    at_least = np.append(counts[::-1].cumsum()[::-1], 1)
    return np.append(values, values[-1] + _ROUNDING), at_least / (len(calibration) + 1)
