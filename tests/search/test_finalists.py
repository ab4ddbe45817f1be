"""Which of the tied heads are compared, and when the default head stays."""

from dataclasses import replace

import numpy as np
import pytest

from featcache.evaluation import scores
from featcache.evaluation.predictions import Predictions
from featcache.search import finalists
from featcache.search.finalists import MOST_COMPARED, choose, metric_among_tied
from featcache.search.fitting import Job
from featcache.search.leaderboard import Finished
from featcache.search.trial import Outcome

RNG = np.random.default_rng(0)
Y = np.arange(200) % 2
JOB = Job((np.zeros((200, 2), np.float32), Y), None, ("a", "b"), "accuracy", 0, folds=Y)


def outcome(confidence, **more):
    """The outcome of a head that gives the true class about this probability."""
    own = np.clip(confidence + RNG.normal(0, 0.05, len(Y)), 0.01, 0.99)
    shares = np.where(Y[:, None] == [0, 1], own[:, None], 1 - own[:, None])
    arguments = Y, shares, shares.argmax(axis=1), [0, 1]
    found = scores(*arguments) | more
    return Outcome(found["log_loss"], found, predictions=Predictions.of(*arguments))


def chosen(monkeypatch, confidences, metric="accuracy", **more):
    """Return the choice among heads of these confidences, and the numbers of those that were compared."""
    outcomes = {number: outcome(one, **more) for number, one in confidences.items()}
    tied = [Finished(number, "head", {}, one) for number, one in outcomes.items()]
    asked = []

    def run(job, requests):
        asked.extend(request.settings for request in requests)
        return [(request.number, replace(outcomes[request.settings], value=1.0), ()) for request in requests]

    monkeypatch.setattr(finalists, "run_trials", run)
    return choose(tied, JOB, {number: number for number in confidences}, metric), asked


def test_the_best_by_log_loss_are_compared_and_the_default_head_with_them(monkeypatch):
    choice, asked = chosen(monkeypatch, {None: 0.6, **{number: 0.7 + number / 50 for number in range(9)}})
    assert asked == [8, 7, 6, 5, 4, None]
    assert len(asked) == MOST_COMPARED + 1
    assert (choice.chosen.trial, choice.default_stands) == (8, False)


@pytest.mark.parametrize(("default", "stands"), [(0.8995, True), (0.9, True), (0.95, True), (0.8, False)])
def test_the_default_head_stays_unless_another_is_better_beyond_the_standard_error(
    monkeypatch, default, stands
):
    choice, _ = chosen(monkeypatch, {None: default, 3: 0.9})
    assert (choice.chosen.trial is None) == choice.default_stands == stands


def test_another_metric_than_accuracy_decides_who_is_compared(monkeypatch):
    assert [metric_among_tied(name) for name in ("accuracy", "macro_f1")] == ["log_loss", "macro_f1"]
    scored = {number: outcome(0.9 - number / 50, macro_f1=number / 10) for number in range(7)}
    tied = [Finished(number, "head", {}, one) for number, one in scored.items()]
    assert [one.trial for one in finalists._finalists(tied, "macro_f1")] == [6, 5, 4, 3, 2]


def test_heads_without_the_metric_are_compared_only_among_themselves():
    without = Finished(0, "head", {}, outcome(0.9, log_loss=None))
    with_loss = Finished(1, "head", {}, outcome(0.6))
    assert finalists._finalists([without, with_loss], "log_loss") == [with_loss]
    assert finalists._finalists([without], "log_loss") == [without]
