"""Rates of several rounds, their median and spread, and the ratios between two sides of one round."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return median, smallest, largest and all values, JSON-ready."""
    return {
        "median": round(median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "all": [round(value, 3) for value in values],
    }


def rates(runs: Sequence[dict[str, Any]]) -> list[float]:
    """Return images per second of every run of a side."""
    return [run["images"] / run["seconds"] for run in runs]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return the spread of our rate over theirs, round by round."""
    return spread([our / their for our, their in zip(ours, theirs, strict=True)])


def efficiency(ours: Sequence[float], decode: Sequence[float], inference: Sequence[float]) -> dict[str, Any]:
    """Return the spread of our rate over what the parts allow.

    All cores together decode one image in 1/decode seconds and then need 1/inference seconds for the
    network; work that does both and nothing else takes the sum.
    """
    allowed = [1 / (1 / d + 1 / i) for d, i in zip(decode, inference, strict=True)]
    return spread([our / most for our, most in zip(ours, allowed, strict=True)])
