"""A trial before and after it is carried out."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.recipe import HeadSettings


@dataclass(frozen=True)
class Asked:
    """A trial to carry out: its number and the head that it is about."""

    number: int
    settings: HeadSettings


@dataclass(frozen=True)
class Outcome:
    """What carrying out a trial gave, as it is kept in the journal.

    Attributes
    ----------
    value : float or None
        Score by the search's metric; None when the trial failed.
    scores : dict
        All scores on validation, as `featcache.evaluation.scores` gives them.
    fit_seconds : float
        Of heads that were trained together, each one's even share.
    size : int
        How many numbers the fitted head holds, see `featcache.search.fitting.size_of`.
    correct : str
        Which validation rows the head gets right, see `pack`.
    epochs : int or None
        That a Dense head was trained for.
    stopped : bool
        Whether it was stopped early because others did better.
    reason : str or None
        Why the trial failed.
    """

    value: float | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    fit_seconds: float = 0.0
    size: int = 0
    correct: str = ""
    epochs: int | None = None
    stopped: bool = False
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON-ready data; ``Outcome(**data)`` reads it."""
        return asdict(self)


def pack(correct: NDArray[np.bool_]) -> str:
    """Return a bit per row as base64 text."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack(text: str, rows: int) -> NDArray[np.bool_]:
    """Return what `pack` was given, shape (rows,)."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=rows).astype(bool)
