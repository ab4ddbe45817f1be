"""Sample weights and groups of the photos that heads are trained and scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.evaluation.fitting import fit_arguments
from featcache.heads.vector_head import VectorHead
from featcache.store.split import Split


@dataclass(frozen=True, eq=False)
class Sampling:
    """How much photos count and which belong together; None where no photo of the data set says so.

    Attributes
    ----------
    weights : float64 array of shape (n,), or None
    groups : int64 array of shape (n,), or None
    units : int64 array of shape (n,), or None
        What must not be divided in any case: groups, copies of a photo, and views of one.
    """

    weights: NDArray[np.float64] | None = None
    groups: NDArray[np.int64] | None = None
    units: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, splits: Sequence[Split]) -> Sampling:
        """Return that of the photos of some splits, one split after the other."""
        has_weights, has_groups = (
            any(one.has_weights for one in splits),
            any(one.has_groups for one in splits),
        )
        units = np.concatenate([one.groups for one in splits])
        return cls(
            np.concatenate([one.weights for one in splits]) if has_weights else None,
            units if has_groups else None,
            units,
        )

    def of_views(self, views: int) -> Sampling:
        """Return that of rows where every photo has so many, one after another."""
        weights, groups, units = self.weights, self.groups, self.units
        return Sampling(
            None if weights is None else weights.repeat(views),
            None if groups is None else groups.repeat(views),
            None if units is None else units.repeat(views),
        )

    @property
    def given_weights(self) -> tuple[NDArray[np.float64], ...]:
        """The weights as further arguments of a function; none where there are none."""
        return () if self.weights is None else (self.weights,)

    @property
    def columns(self) -> dict[str, Any]:
        """The arguments ``weights`` and ``groups`` of scores and of cross-validation."""
        return {"weights": self.weights, "groups": self.groups}


def fit_options(head: Any, rows: Sampling) -> dict[str, Any]:
    """Return what ``fit`` of a head takes of the weights and groups of its rows.

    Heads that cross-validate when they are fitted keep copies and views of a photo together as well.
    """
    groups = rows.units if isinstance(head, VectorHead) else rows.groups
    return fit_arguments(head, rows.weights, groups)


UNIFORM = Sampling()
"""All photos count the same, and each one is by itself."""
