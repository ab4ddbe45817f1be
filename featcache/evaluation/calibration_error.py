"""How far a classifier's confidence is from its accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.evaluation.predictions import checked_probabilities, positions

BINS = 15
"""As in Guo et al."""


def expected_calibration_error(
    y_true: Any,
    probabilities: Any,
    classes: Sequence[Any] | NDArray[Any],
    bins: int = BINS,
) -> float:
    """Return the expected calibration error of the most probable labels.

    Rows are put into `bins` equal bins by their confidence, the largest probability; the error is the mean,
    weighted by rows, of the distance between a bin's accuracy and its mean confidence. Guo, Pleiss, Sun and
    Weinberger, On calibration of modern neural networks, ICML 2017, equation 3. With few rows it is too
    high, since accuracy in a bin scatters.

    Parameters
    ----------
    y_true : array of shape (n,)
        Labels, all of `classes`.
    probabilities : array of shape (n, k)
        Columns as in `classes`.
    classes : sequence of k labels
        Sorted, as a classifier's ``classes_`` are.
    bins : int, default 15

    Returns
    -------
    float in [0, 1]

    Raises
    ------
    ValueError
        There are no rows, the shapes do not go together, a label is none of `classes`, probabilities are
        not in [0, 1], or `bins` is below 1.
    """
    if bins < 1:
        raise ValueError(f"bins = {bins}: there must be 1 or more")
    classes = np.asarray(classes)
    true = positions(y_true, classes)
    if not len(true):
        raise ValueError("there are no rows to score")
    where, gaps = confidence_gaps(true, checked_probabilities(probabilities, len(true), classes), bins)
    return float(np.abs(np.bincount(where, gaps)).sum() / len(true))


def confidence_gaps(
    true: NDArray[np.intp], probabilities: NDArray[Any], bins: int = BINS
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return every row's bin and how far its answer (1 right, 0 wrong) is above its confidence.

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
