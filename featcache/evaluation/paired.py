"""Compare two classifiers on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest


def mcnemar_exact(correct_a: Any, correct_b: Any) -> float:
    """Return the p-value of McNemar's exact test: two equally good classifiers differ by this much or more.

    McNemar, Note on the sampling error of the difference between correlated proportions
    or percentages, Psychometrika 12 (1947) 153–157. Of the rows that exactly one
    classifier gets right, the number that the first gets right is binomial with p = 0.5. Two-sided.

    Parameters
    ----------
    correct_a, correct_b : bool arrays of shape (n,)
        Whether each classifier is right about each row, in the same order.

    Returns
    -------
    float in (0, 1]
        1.0 where both are right about the same rows.

    Raises
    ------
    ValueError
        The arrays differ in length, or are not one-dimensional.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(
            f"arrays of shapes {a.shape} and {b.shape}: both must have one value per row of the same rows"
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b).pvalue)
