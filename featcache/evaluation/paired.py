"""Compare two classifiers on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import bdtr


def mcnemar_exact(correct_a: Any, correct_b: Any) -> float:
    """Return the probability that two equally good classifiers differ as much as these or more.

    The exact test of McNemar, Note on the sampling error of the difference between correlated proportions
    or percentages, Psychometrika 12 (1947) 153–157: of the rows that only one of both gets right, each
    has it by the toss of a coin. Two-sided.

    Parameters
    ----------
    correct_a, correct_b : bool arrays of shape (n,)
        Whether each classifier is right about each row, the rows in the same order.

    Returns
    -------
    float in (0, 1]
        The p-value; 1.0 where both are right about the same rows.

    Raises
    ------
    ValueError
        The arrays are not of one and the same length.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(
            f"answers of shapes {a.shape} and {b.shape}: both classifiers need one per row, of the same rows"
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
