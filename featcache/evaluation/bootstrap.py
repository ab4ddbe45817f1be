"""Bootstrap confidence intervals of scores, by resampling rows or groups of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from featcache.evaluation.calibration_error import BINS, confidence_gaps
from featcache.evaluation.predictions import Predictions

METRICS = ("balanced_accuracy", "macro_f1", "log_loss", "roc_auc", "average_precision", "ece")
"""The metrics of `intervals`."""

Interval = tuple[float, float] | tuple[None, None]

_BLOCK = 1_000_000
"""Counts in memory at once, rows times resamples."""

_Floats = NDArray[np.float64]


def intervals(
    y_true: Any,
    probabilities: NDArray[Any] | None,
    predicted: Any,
    classes: Sequence[Any] | NDArray[Any],
    decision: NDArray[Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    weights: Any = None,
    groups: Any = None,
) -> dict[str, Interval]:
    """Return the confidence interval of each score by the percentile bootstrap over rows or groups.

    Efron and Tibshirani, An introduction to the bootstrap, Chapman and Hall 1993, section 13.3. It covers the
    variation between samples of photos, not between repeated trainings of the head. Groups are drawn as
    wholes, with all their rows: Davison and Hinkley, Bootstrap methods and their application, Cambridge 1997,
    section 3.8 (strategy 1). With fewer than some 20 groups such intervals are too narrow.

    Parameters
    ----------
    y_true, probabilities, predicted, classes, decision, weights, groups
        As for `scores`.
    resamples : int, default 1000
    seed : int, default 0
        Random state of the resampling.
    confidence : float in (0, 1), default 0.95

    Returns
    -------
    dict of str to (low, high)
        For ``balanced_accuracy``, ``macro_f1``, ``log_loss``, ``roc_auc``, ``average_precision`` and ``ece``.
        Resamples without a class that a metric averages over are left out for that metric. (None, None) where
        less than half of them remain, and where `scores` gives None. Resampling increases the calibration
        error, a sum of absolute differences: with few rows its interval is too high and may not contain the
        score itself.

    Raises
    ------
    ValueError
        `scores` rejects the predictions, or `resamples` or `confidence` is invalid.
    """
    if resamples < 1:
        raise ValueError(f"resamples = {resamples}: it must be 1 or more")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence!r} must be between 0 and 1")
    given = Predictions.of(y_true, probabilities, predicted, classes, decision, weights, groups)
    weighted = WeightedMetrics(given)
    blocks = [weighted(drawn) for drawn in resampled_weights(given, resamples, seed)]
    found = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return {
        name: _percentiles(found[name], confidence) if name in found else (None, None) for name in METRICS
    }


def resampled_weights(given: Predictions, resamples: int, seed: int) -> Iterator[_Floats]:
    """Draw rows, or groups with all their rows, and yield how much each row counts.

    Yields
    ------
    float64 array of shape (resamples of this block, n)
        How often a row was drawn, times its weight.
    """
    for counts in resampled(given.group_count, resamples, seed, rows=len(given)):
        drawn = counts if given.groups is None else counts[:, given.groups]
        yield drawn if given.weights is None else drawn * given.weights


def resampled(n: int, resamples: int, seed: int, rows: int | None = None) -> Iterator[_Floats]:
    """Draw `n` of `n` with replacement, `resamples` times, and yield the counts.

    Parameters
    ----------
    n, resamples, seed : int
    rows : int, optional
        How many rows the `n` are, which bounds the size of blocks; default is `n`.

    Yields
    ------
    float64 array of shape (resamples of this block, n)
        The draws do not depend on the size of the blocks.
    """
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // (rows or n))
    for first in range(0, resamples, step):
        draws = (rng.integers(n, size=n) for _ in range(min(step, resamples - first)))
        yield np.stack([np.bincount(drawn, minlength=n) for drawn in draws]).astype(np.float64)


class WeightedMetrics:
    """The metrics of predictions as functions of the weights of the rows.

    All but ROC AUC and average precision follow from sums over rows: one product of the weights with a
    sparse matrix.

    Parameters
    ----------
    given : Predictions
    """

    def __init__(self, given: Predictions) -> None:
        self._there = np.unique(given.true)
        self._seen = np.union1d(given.true, given.predicted)
        self._has_probabilities = given.probabilities is not None
        self._matrix, self._cuts = _row_statistics(given)
        self._rankings = [Ranking.of(values, given.true == label) for label, values in given.rankings()]

    def __call__(self, counts: _Floats) -> dict[str, _Floats]:
        """Return each metric for every vector of weights; NaN where a class that it needs has no weight.

        Parameters
        ----------
        counts : float64 array of shape (b, n)

        Returns
        -------
        dict of str to float64 array of shape (b,)
            Without the metrics that these predictions do not have.
        """
        there, right, said, *rest = np.split(counts @ self._matrix, self._cuts, axis=1)
        with np.errstate(invalid="ignore"):
            found = {
                "balanced_accuracy": (right / there)[:, self._there].mean(axis=1),
                "macro_f1": (2 * right / (there + said))[:, self._seen].mean(axis=1),
            }
            if self._rankings:
                areas = np.mean([ranking.areas(counts) for ranking in self._rankings], axis=0)
                found |= {"roc_auc": areas[0], "average_precision": areas[1]}
        if self._has_probabilities:
            gaps, loss = rest
            rows = counts.sum(axis=1)
            found |= {"ece": np.abs(gaps).sum(axis=1) / rows, "log_loss": loss[:, 0] / rows}
        return found


def _row_statistics(given: Predictions) -> tuple[Any, NDArray[np.intp]]:
    """Return the contribution of each row to each sum, a sparse (n, sums) matrix, and where to split it.

    The groups of sums are the rows, the correct rows and the predicted rows per class; with probabilities
    also the difference between correctness and confidence per bin, and the log loss.
    """
    n, k = len(given), len(given.classes)
    ones = np.ones(n)
    groups = [
        (given.true, ones, k),
        (given.true, given.true == given.predicted, k),
        (given.predicted, ones, k),
    ]
    if given.probabilities is not None:
        groups.append((*confidence_gaps(given.true, given.probabilities), BINS))
        groups.append((np.zeros(n, np.intp), given.losses(), 1))
    where, values, widths = zip(*groups, strict=True)
    ends = np.cumsum(widths)
    columns = np.stack(where, axis=1) + (ends - widths)
    starts = np.arange(n + 1) * len(groups)
    content = np.stack(values, axis=1).astype(np.float64)
    return csr_array((content.ravel(), columns.ravel(), starts), shape=(n, ends[-1])), ends[:-1]


@dataclass(frozen=True)
class Ranking:
    """Rows sorted once by their ranking values, for ROC AUC and average precision under any weights.

    Attributes
    ----------
    order : int array of shape (n,)
        The rows, lowest value first.
    positive : int array of shape (p,)
        The rows that should rank high, lowest value first.
    first, last : int arrays of shape (p,)
        For each of these the number of rows with a lower value, and with a value that is not higher.
    first_positive : int array of shape (p,)
        For each of these how many of them have a lower value.
    """

    order: NDArray[np.intp]
    positive: NDArray[np.intp]
    first: NDArray[np.intp]
    last: NDArray[np.intp]
    first_positive: NDArray[np.intp]

    @classmethod
    def of(cls, values: NDArray[Any], is_positive: NDArray[np.bool_]) -> Self:
        """Return the ranking of rows by `values`, both arguments of shape (n,)."""
        order = np.argsort(values)
        positive = order[is_positive[order]]
        ranked, positives = values[order], values[positive]
        first, last = np.searchsorted(ranked, positives, "left"), np.searchsorted(ranked, positives, "right")
        return cls(order, positive, first, last, np.searchsorted(positives, positives, "left"))

    def areas(self, counts: _Floats) -> tuple[_Floats, _Floats]:
        """Return ROC AUC and average precision for every vector of weights, (b, n) to (b,) each.

        NaN where a side that they need has no weight. ROC AUC is the Mann-Whitney statistic divided by the
        number of pairs: a positive row wins against the weight below it and half of the weight at its own
        value. This counts pairs of positives, too, which sum up to half the square of their weight. Average
        precision is the mean, over the positive rows, of the precision at the row's value as the threshold:
        the sum of precision times increase of recall, as scikit-learn's.
        """
        below = np.pad(np.cumsum(counts[:, self.order], axis=1), ((0, 0), (1, 0)))
        ranks = (below[:, self.first] + below[:, self.last]) / 2
        weights = counts[:, self.positive]
        positives = weights.sum(axis=1)
        wins = (weights * ranks).sum(axis=1) - positives**2 / 2
        area: _Floats = wins / (positives * (below[:, -1] - positives))
        right = np.pad(np.cumsum(weights, axis=1), ((0, 0), (1, 0)))
        hits = positives[:, None] - right[:, self.first_positive]
        precision = np.divide(
            hits, below[:, -1:] - below[:, self.first], out=np.zeros_like(hits), where=weights > 0
        )
        return area, (weights * precision).sum(axis=1) / positives


def _percentiles(values: _Floats, confidence: float) -> Interval:
    defined = values[np.isfinite(values)]
    if 2 * len(defined) < len(values):
        return None, None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
