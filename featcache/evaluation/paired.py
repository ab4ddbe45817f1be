"""Compare two classifiers on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

_DRAWS = 9_999


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
    a, b = _checked(correct_a, correct_b)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b).pvalue)


def paired_test(correct_a: Any, correct_b: Any, weights: Any = None, groups: Any = None) -> float:
    """Return the p-value of the difference of two classifiers on rows that may have weights or groups.

    Without both it is `mcnemar_exact`. Rows of one group depend on each other, so that groups are compared:
    the difference of the two classifiers on a group is as likely as its opposite if they are equally good.
    The p-value is the share of all signs of the groups' differences that give a sum as far from 0: Fisher,
    The design of experiments, Oliver and Boyd 1935, section 21. Without weights the differences are whole
    numbers, and it is exact. With weights 9,999 signs are drawn, and the observed ones are counted with them:
    Phipson and Smyth, Statistical applications in genetics and molecular biology 9 (2010) 39. With groups of
    one row and without weights it is McNemar's exact test.

    Parameters
    ----------
    correct_a, correct_b : bool arrays of shape (n,)
        As for `mcnemar_exact`.
    weights : array of shape (n,), optional
        Sample weights of the rows.
    groups : array of shape (n,), optional
        Rows of the same value are a group.

    Returns
    -------
    float in (0, 1]

    Raises
    ------
    ValueError
        The arrays differ in length, or are not one-dimensional.
    """
    if weights is None and groups is None:
        return mcnemar_exact(correct_a, correct_b)
    a, b = _checked(correct_a, correct_b)
    differences: NDArray[Any] = a.astype(np.float64) - b
    if weights is not None:
        differences *= np.asarray(weights, np.float64)
    if groups is not None:
        differences = np.bincount(np.unique(groups, return_inverse=True)[1], differences)
    sizes = np.abs(differences[differences != 0])
    observed = abs(float(differences.sum()))
    if weights is None:
        return _exact(sizes.astype(np.int64), round(observed))
    return _drawn(sizes, observed)


def _exact(sizes: NDArray[np.int64], observed: int) -> float:
    """Return the share of signs that give a sum of `observed` or farther from 0, for whole numbers.

    The distribution of the sum, from -total to total, is the convolution of those of the terms.
    """
    total = int(sizes.sum())
    shares: NDArray[np.float64] = np.zeros(2 * total + 1)
    shares[total] = 1.0
    for size in map(int, sizes):
        shares = (np.roll(shares, size) + np.roll(shares, -size)) / 2
    far = np.abs(np.arange(-total, total + 1)) >= observed
    return float(min(1.0, shares[far].sum()))


def _drawn(sizes: NDArray[np.float64], observed: float) -> float:
    rng = np.random.default_rng(0)
    # one by one: all signs of many rows would be large
    sums = [float((rng.integers(0, 2, len(sizes)) * 2 - 1) @ sizes) for _ in range(_DRAWS)]
    far = sum(abs(one) >= observed - 1e-9 * sizes.sum() for one in sums)
    return float((far + 1) / (_DRAWS + 1))


def _checked(correct_a: Any, correct_b: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(
            f"arrays of shapes {a.shape} and {b.shape}: both must have one value per row of the same rows"
        )
    return a, b
