"""Sets of classes that hold the true one with a probability that is chosen.

The least ambiguous sets with a bounded error: Sadinle, Lei and Wasserman, Journal of the American Statistical
Association 114 (2019), by split conformal prediction (Vovk, Gammerman and Shafer, 2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ConformalSets:
    """Sets of classes from a head's probabilities.

    Attributes
    ----------
    scores : float32 array of shape (n,)
        One minus the probability of the true class of photos that the head was not fitted on, ascending.
    """

    scores: NDArray[np.float32]

    @classmethod
    def of(cls, probabilities: NDArray[Any], labels: NDArray[Any]) -> Self:
        """Keep what the sets need of held-out probabilities (n, k) and true labels (n,), positions in k.

        Raises
        ------
        ValueError
            There are no rows, or a probability is not finite.
        """
        own = np.asarray(probabilities)[np.arange(len(labels)), labels]
        return cls.from_scores(np.sort(_doubts(own)))

    @classmethod
    def from_scores(cls, scores: NDArray[Any]) -> Self:
        """Check scores that were kept.

        Raises
        ------
        ValueError
            They are not a sorted, not empty float32 array of numbers from 0 to 1.
        """
        if scores.dtype != np.float32 or scores.ndim != 1 or not len(scores):
            raise ValueError(f"scores of shape {scores.shape} and type {scores.dtype}")
        if not (scores[0] >= 0 and scores[-1] <= 1 and (np.diff(scores) >= 0).all()):
            raise ValueError("scores are not ascending from 0 to 1")
        return cls(scores)

    @property
    def smallest(self) -> float:
        """The smallest level for which a class can be left out: 1 / (n + 1)."""
        return 1 / (len(self.scores) + 1)

    def sets(self, probabilities: NDArray[Any], level: float) -> NDArray[np.bool_]:
        """Return which classes are in the set of each row, (n, k).

        Parameters
        ----------
        probabilities : array of shape (n, k)
        level : float
            Share of photos whose set may lack the true class. Where most photos are far more certain than the
            threshold, sets are empty for about this share.
        """
        place = math.ceil((len(self.scores) + 1) * (1 - level) - 1e-9)
        if place > len(self.scores):
            return np.ones(np.shape(probabilities), bool)
        return np.asarray(_doubts(probabilities) <= self.scores[max(place, 1) - 1])


def _doubts(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    # both sides are rounded alike: probabilities near 1 would lie on the wrong side of the threshold
    return np.asarray(1 - np.clip(np.asarray(probabilities, np.float32), 0, 1), np.float32)
