"""What goes into a trial and what comes out of it."""

from __future__ import annotations

import base64
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.evaluation.predictions import Predictions
from featcache.recipe import HeadSettings

_SHARES = ("accuracy", "accuracy_low", "accuracy_high")


@dataclass(frozen=True)
class TrialRequest:
    """A trial to run: its number and the settings of its head."""

    number: int
    settings: HeadSettings


@dataclass(frozen=True)
class Outcome:
    """The result of a trial, as the journal keeps it.

    Attributes
    ----------
    value : float or None
        Score by the search's metric; None when the trial failed.
    scores : dict
        All scores, as `featcache.evaluation.scores` gives them.
    fit_seconds : float
        For heads that were trained together, the total divided by their number.
    size : int
        How many numbers the fitted head has, see `featcache.search.fitting.size_of`.
    correct : str
        Which of the scored photos the head predicts correctly, see `pack`.
    epochs : int or None
        Number of epochs of a Dense head.
    stopped : bool
        Whether it was pruned because others did better.
    reason : str or None
        Why the trial failed.
    constant : bool
        Whether it predicts one class only, although the scored photos are of several.
    predictions : Predictions or None
        Of the scored photos; they are not kept.
    """

    value: float | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    fit_seconds: float = 0.0
    size: int = 0
    correct: str = ""
    epochs: int | None = None
    stopped: bool = False
    reason: str | None = None
    constant: bool = False
    predictions: Predictions | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON-ready data; ``Outcome(**data)`` reads it."""
        facts = asdict(replace(self, predictions=None))
        del facts["predictions"]
        return facts

    def check(self) -> None:
        """Raise a ValueError, TypeError or KeyError where a value read from a journal is invalid."""
        if self.value is None:
            return
        measured = [self.scores[name] for name in ("n", *_SHARES)]
        if self.scores["log_loss"] is not None:
            measured.append(self.scores["log_loss"])
        numbers = (self.value, self.fit_seconds, self.size, *measured)
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("a score is not finite")
        if not all(0 <= self.scores[name] <= 1 for name in _SHARES):
            raise ValueError("a score is not between 0 and 1")
        unpack(self.correct, self.scores["n"])


def pack(correct: NDArray[np.bool_]) -> str:
    """Return a bit per row as base64 text."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack(text: str, rows: int) -> NDArray[np.bool_]:
    """Return the array that `pack` was called with, shape (rows,).

    Raises
    ------
    ValueError
        The text is not of so many rows.
    """
    bits = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(bits) != -(-rows // 8):
        raise ValueError(f"{len(bits)} bytes of bits for {rows} rows")
    return np.unpackbits(bits, count=rows).astype(bool)
