"""Bootstrap confidence intervals of scores, by resampling the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from featcache.evaluation.calibration_error import BINS, confidence_gaps
from featcache.evaluation.predictions import Predictions

METRICS = ("balanced_accuracy", "macro_f1", "log_loss", "roc_auc", "ece")
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
) -> dict[str, Interval]:
    """Return the confidence interval of each score by the percentile bootstrap over rows.

    Efron and Tibshirani, An introduction to the bootstrap, Chapman and Hall 1993, section 13.3. It covers the
    variation between samples of photos, not between repeated trainings of the head.

    Parameters
    ----------
    y_true, probabilities, predicted, classes, decision
        As for `scores`.
    resamples : int, default 1000
    seed : int, default 0
        Random state of the resampling.
    confidence : float in (0, 1), default 0.95

    Returns
    -------
    dict of str to (low, high)
        For ``balanced_accuracy``, ``macro_f1``, ``log_loss``, ``roc_auc`` and ``ece``. Resamples without a
        class that a metric averages over are left out for that metric. (None, None) where less than half of
        them remain, and where `scores` gives None. Resampling increases the calibration error, a sum of
        absolute differences: with few rows its interval is too high and may not contain the score itself.

    Raises
    ------
    ValueError
        `scores` rejects the predictions, or `resamples` or `confidence` is invalid.
    """
    if resamples < 1:
        raise ValueError(f"resamples = {resamples}: it must be 1 or more")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence!r} must be between 0 and 1")
    given = Predictions.of(y_true, probabilities, predicted, classes, decision)
    weighted = WeightedMetrics(given)
    blocks = [weighted(counts) for counts in resampled(len(given), resamples, seed)]
    found = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return {
        name: _percentiles(found[name], confidence) if name in found else (None, None) for name in METRICS
    }


def resampled(n: int, resamples: int, seed: int) -> Iterator[_Floats]:
    """Draw `n` of `n` rows with replacement, `resamples` times, and yield the counts of each row.

    Yields
    ------
    float64 array of shape (resamples of this block, n)
        The draws do not depend on the size of the blocks.
    """
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // n)
    for first in range(0, resamples, step):
        draws = (rng.integers(n, size=n) for _ in range(min(step, resamples - first)))
        yield np.stack([np.bincount(drawn, minlength=n) for drawn in draws]).astype(np.float64)


class WeightedMetrics:
    """The metrics of predictions as functions of the weights of the rows.

    All but ROC AUC follow from sums over rows: one product of the weights with a sparse matrix.

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
                found["roc_auc"] = np.mean([ranking.auc(counts) for ranking in self._rankings], axis=0)
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
    """Rows sorted once by their ranking values, for the ROC AUC under any weights.

    Attributes
    ----------
    order : int array of shape (n,)
        The rows, lowest value first.
    positive : int array of shape (p,)
        The rows that should rank high.
    first, last : int arrays of shape (p,)
        For each of these the number of rows with a lower value, and with a value that is not higher.
    """

    order: NDArray[np.intp]
    positive: NDArray[np.intp]
    first: NDArray[np.intp]
    last: NDArray[np.intp]

    @classmethod
    def of(cls, values: NDArray[Any], is_positive: NDArray[np.bool_]) -> Self:
        """Return the ranking of rows by `values`, both arguments of shape (n,)."""
        order = np.argsort(values)
        ranked, positives = values[order], values[is_positive]
        first, last = np.searchsorted(ranked, positives, "left"), np.searchsorted(ranked, positives, "right")
        return cls(order, np.flatnonzero(is_positive), first, last)

    def auc(self, counts: _Floats) -> _Floats:
        """Return the ROC AUC for every vector of weights, (b, n) to (b,); NaN where one side has no weight.

        It is the Mann-Whitney statistic divided by the number of pairs: a positive row wins against the
        weight below it and half of the weight at its own value. This counts pairs of positives, too, which
        sum up to half the square of their weight.
        """
        below = np.pad(np.cumsum(counts[:, self.order], axis=1), ((0, 0), (1, 0)))
        ranks = (below[:, self.first] + below[:, self.last]) / 2
        weights = counts[:, self.positive]
        positives = weights.sum(axis=1)
        wins = (weights * ranks).sum(axis=1) - positives**2 / 2
        area: _Floats = wins / (positives * (below[:, -1] - positives))
        return area


def _percentiles(values: _Floats, confidence: float) -> Interval:
    defined = values[np.isfinite(values)]
    if 2 * len(defined) < len(values):
        return None, None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
