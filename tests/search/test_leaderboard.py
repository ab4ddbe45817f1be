"""Order, ties and recommendation, on results that were made up."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from featcache.evaluation import mcnemar_exact
from featcache.report.sweep import foot, leaderboard_table
from featcache.search.leaderboard import Choice, Finished, make_leaderboard, tied_with_best
from featcache.search.trial import Outcome, pack, unpack

ROWS = 100


def finished(trial, wrong, size=10, stopped=False, log_loss=0.5, **more):
    """A trial that is wrong about the given rows."""
    correct = np.ones(ROWS, bool)
    correct[list(wrong)] = False
    accuracy = float(correct.mean())
    scores = {"n": ROWS, "accuracy": accuracy, "accuracy_low": 0.1, "accuracy_high": 0.9}
    scores |= {"log_loss": log_loss, "roc_auc": more.pop("roc_auc", 0.5)}
    outcome = Outcome(accuracy, scores, 0.1, size, pack(correct), 3 if stopped else None, stopped)
    return Finished(trial, "head", more or {"C": 1.5}, outcome)


def constant(one):
    return replace(one, outcome=replace(one.outcome, constant=True))


def failed(trial, reason="it diverged"):
    return Finished(trial, "bad", {"C": 2.0}, Outcome(reason=reason))


def board_of(trials, metric):
    """The leaderboard; the first of the tied heads is recommended."""
    tied = tied_with_best(trials, metric)
    return make_leaderboard(trials, metric, tied, Choice(tied[0]))


def order(board):
    return [entry.finished.trial for entry in board.entries]


def test_a_head_that_predicts_one_class_only_is_recommended_only_among_such_heads():
    """It is the simplest, and not significantly different from the best."""
    board = board_of([constant(finished(0, range(4), size=1)), finished(1, range(5))], "accuracy")
    assert order(board) == [1, 0]
    assert (board.recommended.finished.trial, [entry.tied for entry in board.entries]) == (1, [True, False])
    assert [entry["predicts_one_class"] for entry in board.to_json()["entries"]] == [False, True]
    assert board_of([constant(finished(0, range(4)))], "accuracy").recommended.finished.trial == 0


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_correctness_comes_back_as_it_was_packed(bits):
    correct = np.array(bits)
    assert np.array_equal(unpack(pack(correct), len(bits)), correct)


def test_the_better_score_stands_first_then_the_lower_loss_then_the_earlier_trial():
    board = board_of(
        [
            finished(0, range(9)),
            finished(1, range(3), log_loss=0.9),
            finished(2, range(3), log_loss=0.2),
            finished(3, range(3), log_loss=0.9),
            finished(4, range(3), log_loss=None),
        ],
        "accuracy",
    )
    assert order(board) == [2, 1, 3, 4, 0]
    assert [entry.rank for entry in board.entries] == [1, 2, 3, 4, 5]


def test_a_lower_log_loss_is_better():
    trials = [finished(0, []), finished(1, [])]
    low = trials[1].outcome.__class__(**trials[1].outcome.to_json() | {"value": 0.1})
    high = trials[0].outcome.__class__(**trials[0].outcome.to_json() | {"value": 0.9})
    board = board_of([Finished(0, "a", {}, high), Finished(1, "a", {}, low)], "log_loss")
    assert order(board) == [1, 0]


def test_heads_that_chance_can_explain_are_tied():
    best, near, far = range(2), range(10, 16), range(20, 40)
    assert mcnemar_exact(*(~np.isin(np.arange(ROWS), list(rows)) for rows in (best, near))) >= 0.05
    assert mcnemar_exact(*(~np.isin(np.arange(ROWS), list(rows)) for rows in (best, far))) < 0.05
    trials = [finished(1, near), finished(2, far), finished(0, best)]
    assert [one.trial for one in tied_with_best(trials, "accuracy")] == [0, 1]


def test_the_chosen_one_is_recommended_with_what_it_was_compared_by():
    trials = [finished(None, range(4)), finished(0, range(2)), finished(1, range(3))]
    tied = tied_with_best(trials, "accuracy")
    choice = Choice(trials[0], "log_loss", ((trials[0], 0.125), (trials[2], 0.25)), default_stands=True)
    board = make_leaderboard(trials, "accuracy", tied, choice)
    assert (order(board), board.recommended.finished.trial) == ([0, 1, None], None)
    assert [entry.cross_validated for entry in board.entries] == [None, 0.25, 0.125]
    text = foot(board)
    assert "these 100 photos cannot tell 3 of 3 heads apart" in text
    assert "the default head: none of the 1 others" in text
    assert "log loss 0.125" in text
    tuned = make_leaderboard(trials, "accuracy", tied, Choice(trials[2], "log_loss", choice.compared))
    assert "the best cross-validated log loss of 2 of them: 0.250" in foot(tuned)


def test_a_head_that_was_stopped_early_is_shown_but_neither_best_nor_tied():
    trials = [finished(0, range(5)), finished(1, range(1), size=1, stopped=True)]
    board = board_of(trials, "accuracy")
    assert order(board) == [0, 1]
    assert [entry.tied for entry in board.entries] == [True, False]
    assert board.recommended.finished.trial == 0


def test_failed_heads_are_listed_with_their_reason():
    board = board_of([failed(3), finished(1, []), failed(0, "no memory")], "accuracy")
    assert [(one.trial, one.outcome.reason) for one in board.failed] == [(0, "no memory"), (3, "it diverged")]
    assert order(board) == [1]
    assert "2 heads failed" in foot(board)
    assert "no memory" in foot(board)
    assert [one["reason"] for one in board.to_json()["failed"]] == ["no memory", "it diverged"]


def test_csv_and_json_say_the_same():
    board = board_of([finished(0, range(3)), finished(1, range(1), units=[4, 2])], "accuracy")
    data = json.loads(json.dumps(board.to_json()))
    rows = list(csv.DictReader(io.StringIO(board.to_csv())))
    assert [int(row["trial"]) for row in rows] == [entry["trial"] for entry in data["entries"]]
    for row, entry in zip(rows, data["entries"], strict=True):
        assert json.loads(row["searched"]) == entry["searched"]
        assert float(row["accuracy"]) == entry["validation"]["accuracy"]
        assert row["recommended"] == str(entry["recommended"])


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_the_table_fits_80_columns_and_marks_ties(metric):
    searched = {f"a_long_parameter_{number}": 1.23456e-5 for number in range(6)}
    trials = [finished(n, range(n), stopped=n == 9, size=20 - n, **searched) for n in range(30)]
    board = board_of(trials, metric)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(leaderboard_table(board))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith(">") for line in lines) == 1
    shown = board.entries[:20]
    assert sum(line.startswith("=") for line in lines) == sum(e.tied and not e.recommended for e in shown)
    assert "and 10 more" in foot(board)
