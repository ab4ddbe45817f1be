"""Confidence intervals of accuracy and recall: of the share of rows that are right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.evaluation.bootstrap import resampled_weights
from featcache.evaluation.predictions import Predictions
from featcache.evaluation.wilson import wilson_interval

_CONFIDENCE = 0.95

Bounds = tuple[float, float]


def share_intervals(
    given: Predictions, of_rows: NDArray[np.bool_], resamples: int = 1000, seed: int = 0
) -> list[Bounds]:
    """Return the 95% interval of the share of right rows, for several selections of rows.

    Rows that count the same and do not depend on each other have the interval of Wilson. Weighted or grouped
    ones have that of the percentile bootstrap over groups, as `featcache.evaluation.intervals`; but where
    resampling changes nothing, as when all rows are right or all are of one group, that of Wilson for the
    effective number of groups, ``sum(w)**2 / sum(w**2)`` of their weights w (Kish, Survey sampling, Wiley
    1965, section 11.7): a group then counts as one row.

    Parameters
    ----------
    given : Predictions
    of_rows : bool array of shape (s, n)
        The rows of each selection; each has one at least.
    resamples, seed : int
        As for `featcache.evaluation.intervals`.
    """
    right = given.true == given.predicted
    if given.is_plain:
        return [wilson_interval(int(right[rows].sum()), int(rows.sum())) for rows in of_rows]
    sums = np.concatenate([of_rows & right, of_rows]).T.astype(np.float64)
    drawn = np.concatenate([block @ sums for block in resampled_weights(given, resamples, seed)])
    hits, totals = np.split(drawn, 2, axis=1)
    with np.errstate(invalid="ignore"):
        shares = hits / totals
    return [
        _percentiles(column) or _of_effective_groups(given, right, rows)
        for column, rows in zip(shares.T, of_rows, strict=True)
    ]


def _percentiles(shares: NDArray[np.float64]) -> Bounds | None:
    """Return the percentiles of resampled shares; None where they are all the same."""
    defined = shares[np.isfinite(shares)]
    if not len(defined) or np.ptp(defined) < 1e-9:
        return None
    low, high = np.quantile(defined, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def _of_effective_groups(given: Predictions, right: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Bounds:
    weights = (np.ones(len(given)) if given.weights is None else given.weights)[rows]
    groups = np.arange(len(weights)) if given.groups is None else given.groups[rows]
    by_group = np.bincount(groups, weights)
    effective = float(by_group.sum() ** 2 / (by_group**2).sum())
    return wilson_interval(
        effective * float(np.average(right[rows], weights=weights)), effective, _CONFIDENCE
    )
