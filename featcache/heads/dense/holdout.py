"""Weights and groups of training rows, and the groups that early stopping holds out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def held_out_groups(
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

    Raises
    ------
    ValueError
        No group can be held out.
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
    if not chosen:
        raise ValueError(
            "early_stopping can hold out no group, because each has all photos of a class; give fit "
            "validation_data, or set early_stopping to False"
        )
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
