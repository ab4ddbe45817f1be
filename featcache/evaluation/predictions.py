"""Predictions and true labels, validated once for all metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """True and predicted labels as positions in `classes`, with probabilities or decision values.

    Attributes
    ----------
    true, predicted : int arrays of shape (n,)
    classes : array of shape (k,)
        Sorted labels.
    probabilities : array of shape (n, k), or None
    decision : array of shape (n,) or (n, k), or None
    weights : float64 array of shape (n,), or None
        Sample weights above 0: rows of weight 0 are left out. None where all are equal.
    groups : int array of shape (n,), or None
        Numbers from 0 of the groups of rows that depend on each other. None where each row is one by itself.
    """

    true: NDArray[np.intp]
    predicted: NDArray[np.intp]
    classes: NDArray[Any]
    probabilities: NDArray[Any] | None
    decision: NDArray[Any] | None
    weights: NDArray[np.float64] | None = None
    groups: NDArray[np.intp] | None = None

    @classmethod
    def of(
        cls,
        y_true: Any,
        probabilities: Any,
        predicted: Any,
        classes: Sequence[Any] | NDArray[Any],
        decision: Any = None,
        weights: Any = None,
        groups: Any = None,
    ) -> Self:
        """Validate predictions; the arguments are those of `featcache.evaluation.scores`.

        Raises
        ------
        ValueError
            There are no rows, the shapes do not match, a label is not in `classes`, or weights are negative,
            not finite or all 0.
        """
        y_true, predicted, classes = np.asarray(y_true), np.asarray(predicted), np.asarray(classes)
        if not len(y_true):
            raise ValueError("there are no rows to score")
        if y_true.shape != predicted.shape:
            raise ValueError(
                f"{y_true.shape} labels and {predicted.shape} predictions: the shapes must be the same"
            )
        return cls(
            positions(y_true, classes),
            positions(predicted, classes),
            classes,
            None if probabilities is None else checked_probabilities(probabilities, len(y_true), classes),
            None if decision is None else np.asarray(decision),
        )._with(_checked_weights(weights, len(y_true)), _numbered(groups, len(y_true)))

    def _with(self, weights: NDArray[np.float64] | None, groups: NDArray[np.intp] | None) -> Self:
        """Add weights and groups, and leave out rows of weight 0."""
        if weights is None:
            return replace(self, groups=groups)
        rows = weights > 0
        kept: dict[str, Any] = {
            name: None if (column := getattr(self, name)) is None else column[rows]
            for name in ("true", "predicted", "probabilities", "decision")
        }
        weights = weights[rows]
        equal = bool((weights == weights[0]).all())
        groups = None if groups is None else _numbered(groups[rows], len(weights))
        return replace(self, **kept, weights=None if equal else weights, groups=groups)

    def __len__(self) -> int:
        return len(self.true)

    @property
    def is_plain(self) -> bool:
        """Whether all rows count the same and are independent of each other."""
        return self.weights is None and self.groups is None

    @property
    def group_count(self) -> int:
        """Number of groups; rows where each is one by itself."""
        return len(self) if self.groups is None else int(self.groups.max()) + 1

    def rankings(self) -> list[tuple[int, NDArray[Any]]]:
        """Return the inputs of ROC AUC: classes, and the values that rank the rows by them.

        Returns
        -------
        list of (position of the class, array of shape (n,))
            With two classes the second one; with more, every class against the rest. Empty where a class has
            no rows, or there are no such values.
        """
        ranks = self.probabilities if self.probabilities is not None else self.decision
        k = len(self.classes)
        if ranks is None or len(np.unique(self.true)) < max(2, k):
            return []
        if k == 2:
            return [(1, ranks if ranks.ndim == 1 else ranks[:, 1])]
        if ranks.shape != (len(self), k):
            return []
        return list(enumerate(ranks.T))

    def losses(self) -> NDArray[np.float64]:
        """Return the log loss of every row, (n,); probabilities are clipped to [eps, 1 - eps].

        Raises
        ------
        ValueError
            There are no probabilities.
        """
        if self.probabilities is None:
            raise ValueError("the log loss needs probabilities")
        # scikit-learn's log_loss clips in the same way, but warns of float32 probabilities as float64
        eps = np.finfo(np.result_type(self.probabilities, np.float16)).eps
        own = np.clip(self.probabilities[np.arange(len(self)), self.true], eps, 1 - eps)
        losses: NDArray[np.float64] = -np.log(own.astype(np.float64))
        return losses


def _checked_weights(weights: Any, n: int) -> NDArray[np.float64] | None:
    if weights is None:
        return None
    found = np.asarray(weights, np.float64)
    if found.shape != (n,):
        raise ValueError(f"{n} rows and weights of shape {found.shape}: give one weight per row")
    if not (np.isfinite(found) & (found >= 0)).all() or not found.any():
        raise ValueError("weights must be finite numbers of 0 or more, and not all 0")
    return found


def _numbered(groups: Any, n: int) -> NDArray[np.intp] | None:
    """Return the groups as numbers from 0; None where all are different."""
    if groups is None:
        return None
    if np.shape(groups) != (n,):
        raise ValueError(f"{n} rows and groups of shape {np.shape(groups)}: give one group per row")
    names, numbers = np.unique(groups, return_inverse=True)
    return None if len(names) == n else numbers


def positions(labels: Any, classes: NDArray[Any]) -> NDArray[np.intp]:
    """Return the position of each label in the sorted `classes`, (n,).

    Raises
    ------
    ValueError
        A label is not in `classes`.
    """
    labels = np.asarray(labels)
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(f"labels {unknown.tolist()[:5]} are not among the classes {classes.tolist()}")
    found: NDArray[np.intp] = np.searchsorted(classes, labels)
    return found


def checked_probabilities(probabilities: Any, n: int, classes: NDArray[Any]) -> NDArray[Any]:
    """Return the probabilities as an array of shape (n, k).

    Raises
    ------
    ValueError
        They have another shape, or are not in [0, 1].
    """
    found = np.asarray(probabilities)
    if found.shape != (n, len(classes)):
        raise ValueError(
            f"probabilities have the shape {found.shape}; {n} rows of {len(classes)} classes "
            f"need {(n, len(classes))}"
        )
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError(
            f"probabilities must be between 0 and 1; these are from {found.min()} to {found.max()}"
        )
    return found
