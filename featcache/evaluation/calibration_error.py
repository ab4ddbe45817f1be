"""The expected calibration error: the distance of confidence from accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.evaluation.predictions import checked_probabilities, positions

BINS = 15
"""As in Guo et al. (2017)."""


def expected_calibration_error(
    y_true: Any,
    probabilities: Any,
    classes: Sequence[Any] | NDArray[Any],
    bins: int = BINS,
    weights: Any = None,
) -> float:
    """Return the expected calibration error of the most probable labels.

    Rows are grouped into `bins` bins of equal width by their confidence, the largest probability. The error
    is the mean over the bins, weighted by their rows, of the absolute difference between accuracy and mean
    confidence: Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017, equation
    3. With few rows it is biased upwards, because the accuracy of a bin varies.

    Parameters
    ----------
    y_true : array of shape (n,)
        Labels in `classes`.
    probabilities : array of shape (n, k)
        Columns as in `classes`.
    classes : sequence of k labels
        Sorted, as a classifier's ``classes_`` are.
    bins : int, default 15
    weights : array of shape (n,), optional
        Sample weights of the rows; default is 1.

    Returns
    -------
    float in [0, 1]

    Raises
    ------
    ValueError
        There are no rows, the shapes do not match, a label is not in `classes`, probabilities are not in
        [0, 1], or `bins` is below 1.
    """
    if bins < 1:
        raise ValueError(f"bins = {bins}: it must be 1 or more")
    classes = np.asarray(classes)
    true = positions(y_true, classes)
    if not len(true):
        raise ValueError("there are no rows to score")
    where, gaps = confidence_gaps(true, checked_probabilities(probabilities, len(true), classes), bins)
    weights = np.ones(len(true)) if weights is None else np.asarray(weights, np.float64)
    return float(np.abs(np.bincount(where, gaps * weights)).sum() / weights.sum())


def confidence_gaps(
    true: NDArray[np.intp], probabilities: NDArray[Any], bins: int = BINS
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the bin of each row, and its correctness (1 or 0) minus its confidence.

    Parameters
    ----------
    true : int array of shape (n,)
        Positions of the true classes.
    probabilities : array of shape (n, k)
    bins : int, default 15
        Of equal width, closed on the right.

    Returns
    -------
    where : int array of shape (n,), values in [0, bins)
    gaps : float64 array of shape (n,)
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    where = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)
    return where, (probabilities.argmax(axis=1) == true) - confidence
