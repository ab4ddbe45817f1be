"""Ranks finished trials, tests which are tied with the best, and recommends one of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featcache.evaluation import mcnemar_exact
from featcache.search.trial import Outcome, unpack

SIGNIFICANCE = 0.05
"""Significance level: trials with at least this p-value against the best are tied with it."""


@dataclass(frozen=True)
class Finished:
    """A finished trial.

    Attributes
    ----------
    trial : int
        Number of the trial.
    head : str
        Name of its table in the recipe's ``sweep.space``.
    searched : dict
        The searched parameters with their values.
    outcome : Outcome
    """

    trial: int
    head: str
    searched: Mapping[str, Any]
    outcome: Outcome


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
    """

    rank: int
    finished: Finished
    tied: bool
    recommended: bool

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
    """

    metric: str
    entries: tuple[Entry, ...]
    failed: tuple[Finished, ...]

    @property
    def recommended(self) -> Entry:
        """The simplest of the entries that are tied with the best."""
        return next(entry for entry in self.entries if entry.recommended)

    def to_json(self) -> dict[str, Any]:
        """Return the leaderboard as JSON-ready data."""
        failed = [
            {"trial": one.trial, "head": one.head, "searched": one.searched, "reason": one.outcome.reason}
            for one in self.failed
        ]
        return {
            "metric": self.metric,
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


def make_leaderboard(finished: Iterable[Finished], metric: str) -> Leaderboard:
    """Rank finished trials and recommend one.

    Trials are ranked by the metric, then by log loss, then by number. Tied with the best are those that are
    not significantly different from it by McNemar's exact test at 5%: the best score of many is partly luck.
    Of these the simplest is recommended, the one with the smallest ``size``; among equals, the first. (The
    time to fit is not used, because the choice would then differ between runs.) Pruned heads did not finish
    training, so they are neither best nor tied. Heads that predict one class only come after those that do
    not, and are neither best nor tied while there is another.

    Parameters
    ----------
    finished : iterable of Finished
        At least one of them trained to its end.
    metric : str
    """
    everything = sorted(finished, key=lambda one: one.trial)
    ordered = sorted(
        (one for one in everything if one.outcome.value is not None), key=lambda one: _place(one, metric)
    )
    complete = [one for one in ordered if not one.outcome.stopped]
    tied = _tied([one for one in complete if not one.outcome.constant] or complete)
    chosen = min(tied, key=lambda one: one.outcome.size)
    entries = [
        Entry(rank, one, any(one is other for other in tied), one is chosen)
        for rank, one in enumerate(ordered, start=1)
    ]
    failed = [one for one in everything if one.outcome.value is None]
    return Leaderboard(metric, tuple(entries), tuple(failed))


def _place(one: Finished, metric: str) -> tuple[bool, bool, float, float, int]:
    value = one.outcome.value or 0.0
    loss = one.outcome.scores["log_loss"]
    return (
        one.outcome.stopped,
        one.outcome.constant,
        value if metric == "log_loss" else -value,
        float("inf") if loss is None else loss,
        one.trial,
    )


def _tied(ordered: Sequence[Finished]) -> list[Finished]:
    best = _correct(ordered[0])
    return [one for one in ordered if mcnemar_exact(best, _correct(one)) >= SIGNIFICANCE]


def _correct(one: Finished) -> Any:
    return unpack(one.outcome.correct, one.outcome.scores["n"])


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in entry.items() if key not in ("searched", "validation")}
    return {**flat, **entry["validation"], "searched": json.dumps(entry["searched"])}
