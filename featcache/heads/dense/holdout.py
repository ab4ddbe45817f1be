"""Weights and groups of training rows, and the rows that early stopping holds out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def draw_per_class(
    labels: NDArray[np.int32], share: float, random: np.random.RandomState
) -> NDArray[np.bool_]:
    """Draw a share of the rows of each class, one at least and not all; of a class of one row none."""
    drawn = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        drawn[rows[:count]] = True
    return drawn


def draw_groups(
    labels: NDArray[Any], groups: NDArray[Any], share: float, random: np.random.RandomState
) -> NDArray[np.bool_]:
    """Draw groups until they hold a share of the photos of every class.

    A group is drawn while each of its classes lacks photos, so a class can get more by one group at most. A
    class keeps photos to train on, and one whose photos are all of one group is not held out.

    Parameters
    ----------
    labels : int array of shape (n,)
        Positions in the classes.
    groups : array of shape (n,)
    share : float
        Above 0 and below 1.
    random : RandomState

    Returns
    -------
    bool array of shape (n,)
        No row where each group has all photos of a class.
    """
    names, of_row = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(counts, (of_row, labels), 1)
    total = counts.sum(axis=0)
    held = np.zeros_like(total)
    chosen = []
    for group in random.permutation(len(names)):
        has = counts[group] > 0
        if (held < share * total)[has].all() and (held + counts[group] < total)[has].all():
            held += counts[group]
            chosen.append(group)
    return np.isin(of_row, chosen)


def checked_weights(weights: Any, rows: int) -> NDArray[np.float32] | None:
    """Return sample weights as float32.

    Raises
    ------
    ValueError
        There is not one for each row, or they are negative, not finite or all 0.
    """
    if weights is None:
        return None
    found = np.asarray(weights, np.float32)
    if found.shape != (rows,):
        raise ValueError(
            f"sample_weight has the shape {found.shape}, but X has {rows} rows; give one per row"
        )
    if not (np.isfinite(found) & (found >= 0)).all() or not found.any():
        raise ValueError("sample_weight must hold finite numbers of 0 or more, and not zeros only")
    return found


def checked_groups(groups: Any, rows: int) -> NDArray[Any]:
    """Return the groups as an array.

    Raises
    ------
    ValueError
        There is not one for each row.
    """
    found = np.asarray(groups)
    if found.shape != (rows,):
        raise ValueError(f"groups has the shape {found.shape}, but X has {rows} rows; give one per row")
    return found
