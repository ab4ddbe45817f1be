"""A Dense head for all photos, after cross-validation has found how many epochs it takes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_high

from sklearn.base import clone

from featcache.heads.dense.head import DenseHead


def refit_after_folds(head: DenseHead, fitted_folds: Sequence[DenseHead]) -> DenseHead:
    """Return an unfitted head to train on all rows, for as many epochs as it took on the folds.

    Parameters
    ----------
    head : DenseHead
        It is not changed.
    fitted_folds : sequence of DenseHead
        Its clones by fold, see `featcache.heads.dense.stack.fit_folds`.

    Returns
    -------
    DenseHead
        A clone. With early stopping it trains the median of the folds' epochs, the higher of two in the
        middle, and does not stop early: no row is left to decide by.
    """
    if not head.early_stopping:
        same: DenseHead = clone(head)
        return same
    epochs = int(median_high(one.n_iter_ for one in fitted_folds))
    again: DenseHead = clone(head).set_params(epochs=epochs, early_stopping=False)
    return again
