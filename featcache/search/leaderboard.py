"""Ranks finished trials, tests which are tied with the best, and recommends one of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featcache.evaluation.paired import paired_test
from featcache.search.trial import Outcome, unpack

SIGNIFICANCE = 0.05
"""Significance level: trials with at least this p-value against the best are tied with it."""


@dataclass(frozen=True)
class Finished:
    """A finished trial, or the default head.

    Attributes
    ----------
    trial : int or None
        Number of the trial; None for the default head, which is compared with all trials.
    head : str
        Name of its table in the recipe's ``sweep.space``, or of the default head.
    searched : dict
        The searched parameters with their values.
    outcome : Outcome
    """

    trial: int | None
    head: str
    searched: Mapping[str, Any]
    outcome: Outcome


@dataclass(frozen=True)
class Choice:
    """Which of the heads that are tied with the best is recommended.

    Attributes
    ----------
    chosen : Finished
    metric : str
        What the heads were compared by.
    compared : tuple of (Finished, float)
        The heads that were compared, with their cross-validated scores.
    default_stands : bool
        Whether the default head is chosen because no other is better by more than a standard error.
    """

    chosen: Finished
    metric: str = "log_loss"
    compared: tuple[tuple[Finished, float], ...] = ()
    default_stands: bool = False


@dataclass(frozen=True)
class Entry:
    """An entry of the leaderboard.

    Attributes
    ----------
    rank : int
        From 1.
    finished : Finished
    tied : bool
        Whether it is the best, or not significantly different from the best.
    recommended : bool
    cross_validated : float or None
        Cross-validated score, for the tied heads that were compared by it.
    """

    rank: int
    finished: Finished
    tied: bool
    recommended: bool
    cross_validated: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON-ready data."""
        outcome = self.finished.outcome
        return {
            "rank": self.rank,
            "trial": self.finished.trial,
            "head": self.finished.head,
            "searched": dict(self.finished.searched),
            "validation": outcome.scores,
            "fit_seconds": round(outcome.fit_seconds, 3),
            "size": outcome.size,
            "epochs": outcome.epochs,
            "stopped": outcome.stopped,
            "predicts_one_class": outcome.constant,
            "tied": self.tied,
            "recommended": self.recommended,
            "cross_validated": self.cross_validated,
        }


@dataclass(frozen=True)
class Leaderboard:
    """All finished trials of a search.

    Attributes
    ----------
    metric : str
    entries : tuple of Entry
        The best first; pruned heads come after all others.
    failed : tuple of Finished
        Heads that could not be trained or scored, by number.
    compared_by : str
        The metric of the entries' ``cross_validated``.
    default_stands : bool
        Whether the default head is recommended because no other is better by more than a standard error.
    """

    metric: str
    entries: tuple[Entry, ...]
    failed: tuple[Finished, ...]
    compared_by: str = "log_loss"
    default_stands: bool = False

    @property
    def recommended(self) -> Entry:
        """The one of the tied entries that is recommended, see `featcache.search.finalists.choose`."""
        return next(entry for entry in self.entries if entry.recommended)

    def to_json(self) -> dict[str, Any]:
        """Return the leaderboard as JSON-ready data."""
        failed = [
            {"trial": one.trial, "head": one.head, "searched": one.searched, "reason": one.outcome.reason}
            for one in self.failed
        ]
        return {
            "metric": self.metric,
            "compared_by": self.compared_by,
            "default_stands": self.default_stands,
            "entries": [entry.to_json() for entry in self.entries],
            "failed": failed,
        }

    def to_csv(self) -> str:
        """Return the entries as CSV: one column per score, one with the searched parameters as JSON."""
        rows = [_flat(entry.to_json()) for entry in self.entries]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def tied_with_best(
    finished: Iterable[Finished], metric: str, weights: Any = None, groups: Any = None
) -> list[Finished]:
    """Return the heads that are not significantly different from the best, the best first.

    Significance is that of `featcache.evaluation.paired.paired_test` at 5%, without weights and groups
    McNemar's exact test: the best score of many is partly luck. Pruned heads
    did not finish training, so they are neither best nor tied. Heads that predict one class only come after
    those that do not, and are neither best nor tied while there is another.

    Parameters
    ----------
    finished : iterable of Finished
        At least one of them trained to its end.
    metric : str
    weights, groups : array of shape (n,), optional
        Of the scored photos.
    """
    complete = [one for one in _ranked(finished, metric) if not one.outcome.stopped]
    candidates = [one for one in complete if not one.outcome.constant] or complete
    best = _correct(candidates[0])
    return [one for one in candidates if paired_test(best, _correct(one), weights, groups) >= SIGNIFICANCE]


def make_leaderboard(
    finished: Sequence[Finished], metric: str, tied: Sequence[Finished], choice: Choice
) -> Leaderboard:
    """Rank finished heads: by the metric, then by log loss, then by number; pruned heads come last."""
    entries = [
        Entry(
            rank,
            one,
            any(one is other for other in tied),
            one is choice.chosen,
            next((value for other, value in choice.compared if other is one), None),
        )
        for rank, one in enumerate(_ranked(finished, metric), start=1)
    ]
    failed = [one for one in finished if one.outcome.value is None]
    return Leaderboard(
        metric, tuple(entries), tuple(sorted(failed, key=_number)), choice.metric, choice.default_stands
    )


def _ranked(finished: Iterable[Finished], metric: str) -> list[Finished]:
    return sorted(
        (one for one in finished if one.outcome.value is not None), key=lambda one: _place(one, metric)
    )


def _number(one: Finished) -> int:
    return -1 if one.trial is None else one.trial


def _place(one: Finished, metric: str) -> tuple[bool, bool, float, float, int]:
    value = one.outcome.value or 0.0
    loss = one.outcome.scores["log_loss"]
    return (
        one.outcome.stopped,
        one.outcome.constant,
        value if metric == "log_loss" else -value,
        float("inf") if loss is None else loss,
        _number(one),
    )


def _correct(one: Finished) -> Any:
    return unpack(one.outcome.correct, one.outcome.scores["n"])


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in entry.items() if key not in ("searched", "validation")}
    return {**flat, **entry["validation"], "searched": json.dumps(entry["searched"])}
