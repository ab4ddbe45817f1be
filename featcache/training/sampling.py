"""Sample weights and groups of the photos that heads are trained and scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.store.split import Split


@dataclass(frozen=True, eq=False)
class Sampling:
    """How much photos count and which belong together; None where no photo of the data set says so.

    Attributes
    ----------
    weights : float64 array of shape (n,), or None
    groups : int64 array of shape (n,), or None
    """

    weights: NDArray[np.float64] | None = None
    groups: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, splits: Sequence[Split]) -> Sampling:
        """Return that of the photos of some splits, one split after the other."""
        has_weights, has_groups = (
            any(one.has_weights for one in splits),
            any(one.has_groups for one in splits),
        )
        return cls(
            np.concatenate([one.weights for one in splits]) if has_weights else None,
            np.concatenate([one.groups for one in splits]) if has_groups else None,
        )

    def of_views(self, views: int) -> Sampling:
        """Return that of rows where every photo has so many, one after another."""
        weights, groups = self.weights, self.groups
        return Sampling(
            None if weights is None else weights.repeat(views),
            None if groups is None else groups.repeat(views),
        )

    @property
    def given_weights(self) -> tuple[NDArray[np.float64], ...]:
        """The weights as further arguments of a function; none where there are none."""
        return () if self.weights is None else (self.weights,)

    @property
    def columns(self) -> dict[str, Any]:
        """The arguments ``weights`` and ``groups`` of scores and of cross-validation."""
        return {"weights": self.weights, "groups": self.groups}
