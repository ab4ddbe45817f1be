"""Decides whether an exported model gives the model's labels: a pure function of their probabilities."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.evaluation.novelty import DEFAULT_LEVEL

UNKNOWN = -1
"""The label of a photo whose class is not known."""

REQUIRED = 0.99
REQUIRED_INT8 = 0.95


@dataclass(frozen=True)
class Predictions:
    """Probabilities and labels of n photos.

    Attributes
    ----------
    probabilities : ndarray, shape (n, classes)
    labels : ndarray of int, shape (n,)
    novelty : ndarray, shape (n,), or None
        p-values.
    """

    probabilities: NDArray[Any]
    labels: NDArray[np.int64]
    novelty: NDArray[Any] | None = None


@dataclass(frozen=True)
class Comparison:
    """How two models agree.

    Attributes
    ----------
    photos : int
    largest_difference : float
        Of the probability of any class of any photo; not finite where one of them is not.
    equal_labels : float
        Share of the photos.
    required : float
        How large that share must be.
    labelled : int
        Photos whose true class is known.
    accuracy, exported_accuracy : float or None
        On those; None when there are none.
    """

    photos: int
    largest_difference: float
    equal_labels: float
    required: float
    labelled: int
    accuracy: float | None
    exported_accuracy: float | None

    @property
    def passed(self) -> bool:
        """Whether enough labels are equal."""
        return self.equal_labels >= self.required

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON-ready data."""
        return asdict(self)


def compare(
    original: Predictions, exported: NDArray[Any], truth: NDArray[np.int64], required: float
) -> Comparison:
    """Compare the predictions of the model and of its exported form on the same photos.

    Parameters
    ----------
    original : Predictions
    exported : ndarray, shape (n, classes)
        Probabilities; the most probable class is the label. A row that is not finite equals no label.
    truth : ndarray of int, shape (n,)
        The photos' labels or `UNKNOWN`.
    required : float
        Smallest share of equal labels that passes.

    Raises
    ------
    ValueError
        The exported form gives arrays of another shape.
    """
    if exported.shape != original.probabilities.shape:
        raise ValueError(f"gives {exported.shape} numbers instead of {original.probabilities.shape}")
    finite = np.isfinite(exported).all(axis=1)
    labels = np.where(finite, exported.argmax(axis=1), UNKNOWN - 1)
    known = truth != UNKNOWN
    return Comparison(
        photos=len(truth),
        largest_difference=float(np.abs(exported - original.probabilities).max()),
        equal_labels=float(np.mean(labels == original.labels)),
        required=required,
        labelled=int(known.sum()),
        accuracy=_accuracy(original.labels[known], truth[known]),
        exported_accuracy=_accuracy(labels[known], truth[known]),
    )


@dataclass(frozen=True)
class NoveltyComparison:
    """How the p-values of two models agree.

    Attributes
    ----------
    largest_difference : float
        Of the p-value of any photo; not finite where one of them is not.
    equally_rejected : float
        Share of the photos that both reject, or neither, at level 0.05.
    """

    largest_difference: float
    equally_rejected: float

    @property
    def passed(self) -> bool:
        """Whether enough photos are rejected alike."""
        return self.equally_rejected >= REQUIRED

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON-ready data."""
        return asdict(self)


def compare_novelty(original: NDArray[Any] | None, exported: NDArray[Any] | None) -> NoveltyComparison | None:
    """Compare the p-values (n,) of the model and of its exported form on the same photos; None without both.

    Raises
    ------
    ValueError
        The exported form gives arrays of another shape.
    """
    if original is None or exported is None:
        return None
    if exported.shape != original.shape:
        raise ValueError(f"gives {exported.shape} numbers of novelty instead of {original.shape}")
    alike = (original < DEFAULT_LEVEL) == (exported < DEFAULT_LEVEL)
    return NoveltyComparison(
        largest_difference=float(np.abs(exported - original).max()),
        equally_rejected=float(np.mean(alike & np.isfinite(exported))),
    )


def _accuracy(labels: NDArray[Any], truth: NDArray[Any]) -> float | None:
    return float(np.mean(labels == truth)) if len(truth) else None
