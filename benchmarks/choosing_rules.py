"""Rules that choose one of several heads from their scores on one draw of photos; no rule sees test scores.

A `Draw` has the scores of every head; a rule returns the name of the head that it takes. Some rules take the
head as it was fitted on train, others fit it again on train and validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.evaluation.paired import mcnemar_exact

LEVEL = 0.05
"""p-values of McNemar's test from here on do not separate two heads."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one head on some rows.

    Attributes
    ----------
    accuracy : float
    log_loss : float
        In nats.
    correct : bool array of shape (n,), or None
        Whether each row was predicted correctly.
    """

    accuracy: float
    log_loss: float
    correct: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, correct: NDArray[np.bool_], losses: NDArray[np.float64]) -> Scores:
        """Return the scores of rows, from their correctness and their log losses, both (n,)."""
        return cls(float(correct.mean()), float(losses.mean()), correct)

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON-ready data."""
        found: dict[str, Any] = {"accuracy": round(self.accuracy, 6), "log_loss": round(self.log_loss, 6)}
        if self.correct is not None:
            found["correct"] = "".join("01"[int(one)] for one in self.correct)
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scores:
        """Return what `to_json` has written."""
        bits = data.get("correct")
        correct = None if bits is None else np.frombuffer(bits.encode(), np.uint8) == ord("1")
        return cls(data["accuracy"], data["log_loss"], correct)


@dataclass(frozen=True)
class HeadScores:
    """All scores of one head on one draw.

    Attributes
    ----------
    validation : Scores
        Fitted on train.
    folds : tuple of Scores
        Cross-validated on train and validation, one per repetition.
    test : Scores
        Fitted on train.
    refitted : Scores
        On test, fitted on train and validation.
    """

    validation: Scores
    folds: tuple[Scores, ...]
    test: Scores
    refitted: Scores

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON-ready data."""
        return {
            "validation": self.validation.to_json(),
            "folds": [one.to_json() for one in self.folds],
            "test": self.test.to_json(),
            "refitted": self.refitted.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HeadScores:
        """Return what `to_json` has written."""
        folds = tuple(Scores.from_json(one) for one in data["folds"])
        others = (Scores.from_json(data[name]) for name in ("validation", "test", "refitted"))
        validation, test, refitted = others
        return cls(validation, folds, test, refitted)


Draw = Mapping[str, HeadScores]
"""The heads of one draw, in the order of the recipe: the default head first."""


@dataclass(frozen=True)
class Rule:
    """How a head is chosen.

    Attributes
    ----------
    words : str
    choose : callable
        Returns the name of a head of a `Draw`.
    refits : bool
        Whether the chosen head is fitted again on train and validation.
    repeats : int
        Repetitions of the cross-validation that it needs.
    """

    words: str
    choose: Callable[[Draw], str]
    refits: bool
    repeats: int = 0

    def outcome(self, draw: Draw) -> Scores:
        """Return the test scores of the chosen head."""
        return test_scores(draw[self.choose(draw)], self.refits)


def test_scores(head: HeadScores, refitted: bool) -> Scores:
    """Return a head's scores on test."""
    return head.refitted if refitted else head.test


def most_accurate(draw: Draw) -> str:
    """Choose by validation accuracy; among equals, by log loss."""
    return min(draw, key=lambda name: (-draw[name].validation.accuracy, draw[name].validation.log_loss))


def lowest_loss(draw: Draw) -> str:
    """Choose by validation log loss."""
    return min(draw, key=lambda name: draw[name].validation.log_loss)


def lowest_loss_of_tied(draw: Draw) -> str:
    """Choose by validation log loss, of the heads that are not significantly less accurate than the best."""
    return _of_tied({name: head.validation for name, head in draw.items()})


def lowest_loss_of_tied_in_folds(draw: Draw) -> str:
    """Choose by cross-validated log loss, of the heads that are not significantly less accurate."""
    return _of_tied({name: head.folds[0] for name, head in draw.items()})


def _of_tied(scores: Mapping[str, Scores]) -> str:
    best = min(scores, key=lambda name: (-scores[name].accuracy, scores[name].log_loss))
    tied = [name for name in scores if mcnemar_exact(scores[best].correct, scores[name].correct) >= LEVEL]
    return min(tied, key=lambda name: scores[name].log_loss)


def lowest_loss_in_folds(draw: Draw) -> str:
    """Choose by the log loss of one cross-validation."""
    return min(draw, key=lambda name: draw[name].folds[0].log_loss)


def lowest_loss_in_repeated_folds(draw: Draw) -> str:
    """Choose by the mean log loss of all repetitions of the cross-validation."""
    return min(draw, key=lambda name: np.mean([one.log_loss for one in draw[name].folds]))


def most_accurate_in_folds(draw: Draw) -> str:
    """Choose by the accuracy of one cross-validation; among equals, by log loss."""
    return min(draw, key=lambda name: (-draw[name].folds[0].accuracy, draw[name].folds[0].log_loss))


def first(draw: Draw) -> str:
    """Take the first head, whatever the scores."""
    return next(iter(draw))


RULES: dict[str, Rule] = {
    "a": Rule("validation accuracy", most_accurate, refits=False),
    "b": Rule("validation log loss", lowest_loss, refits=False),
    "c": Rule("validation log loss of those that McNemar ties", lowest_loss_of_tied, refits=False),
    "d": Rule("5-fold log loss, fitted on both", lowest_loss_in_folds, refits=True, repeats=1),
    "e": Rule("3x5-fold log loss, fitted on both", lowest_loss_in_repeated_folds, refits=True, repeats=3),
    "f": Rule("5-fold accuracy, fitted on both", most_accurate_in_folds, refits=True, repeats=1),
    "g": Rule("validation log loss, fitted on both", lowest_loss, refits=True),
    "h": Rule("validation accuracy, fitted on both", most_accurate, refits=True),
    "i": Rule(
        "5-fold log loss of those that McNemar ties, fitted on both",
        lowest_loss_of_tied_in_folds,
        refits=True,
        repeats=1,
    ),
    "j": Rule("always the first head, fitted on both", first, refits=True),
}


@dataclass(frozen=True)
class Regret:
    """By how much the head of a rule is worse on test than the best one, in one draw.

    Attributes
    ----------
    log_loss, accuracy : float
        The head's own scores.
    log_loss_same, accuracy_same : float
        Regret against the best of the heads that were fitted on the same photos, 0 or more.
    log_loss_any, accuracy_any : float
        Against the best of all, fitted on train alone or on train and validation.
    is_best : bool
        Whether no head that was fitted on the same photos has a lower log loss on test.
    """

    log_loss: float
    accuracy: float
    log_loss_same: float
    accuracy_same: float
    log_loss_any: float
    accuracy_any: float
    is_best: bool


def regret(rule: Rule, draw: Draw) -> Regret:
    """Return the regret of a rule in one draw."""
    own = rule.outcome(draw)
    same = [test_scores(head, rule.refits) for head in draw.values()]
    every = [test_scores(head, refitted) for head in draw.values() for refitted in (False, True)]
    lowest, highest = min(one.log_loss for one in same), max(one.accuracy for one in same)
    return Regret(
        own.log_loss,
        own.accuracy,
        own.log_loss - lowest,
        highest - own.accuracy,
        own.log_loss - min(one.log_loss for one in every),
        max(one.accuracy for one in every) - own.accuracy,
        own.log_loss <= lowest,
    )
