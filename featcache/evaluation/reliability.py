"""How far probabilities can be trusted: the share of right predictions beside their mean probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.evaluation.calibration_error import BINS, confidence_gaps
from featcache.evaluation.predictions import checked_probabilities, positions
from featcache.evaluation.wilson import wilson_interval


def reliability(
    y_true: Any, probabilities: Any, classes: Sequence[Any] | NDArray[Any], bins: int = BINS
) -> list[dict[str, Any]]:
    """Return accuracy and mean confidence by bins of confidence, the largest probability of a row.

    The bins are those of `expected_calibration_error`, which is the mean difference of the two weighted by
    ``n``. As a diagram: DeGroot and Fienberg, The comparison and evaluation of forecasters, The Statistician
    32 (1983) 12–22.

    Parameters
    ----------
    y_true : array of shape (n,)
        Labels in `classes`.
    probabilities : array of shape (n, k)
    classes : sequence of k labels
        Sorted.
    bins : int, default 15

    Returns
    -------
    list of dict
        For each bin with rows: ``low`` and ``high`` (its limits, closed on the right), ``n``, ``confidence``
        (mean), ``accuracy``, and ``accuracy_low`` and ``accuracy_high`` (Wilson interval, 95%).

    Raises
    ------
    ValueError
        The shapes do not match, a label is not in `classes`, or probabilities are not in [0, 1].
    """
    classes = np.asarray(classes)
    true = positions(y_true, classes)
    shares = checked_probabilities(probabilities, len(true), classes)
    where, gaps = confidence_gaps(true, shares, bins)
    confidence = shares.max(axis=1).astype(np.float64)
    found = []
    for number in np.unique(where).tolist():
        rows = where == number
        n, right = int(rows.sum()), round(float((gaps + confidence)[rows].sum()))
        low, high = wilson_interval(right, n)
        found.append(
            {
                "low": number / bins,
                "high": (number + 1) / bins,
                "n": n,
                "confidence": float(confidence[rows].mean()),
                "accuracy": right / n,
                "accuracy_low": low,
                "accuracy_high": high,
            }
        )
    return found
