"""How trials are carried out: which heads are stopped, what counts as simple, what a failure says."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from featcache.recipe import HeadSettings
from featcache.search.fitting import Halving, Job, run_trials, size_of
from featcache.search.trial import TrialRequest, unpack


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    labels = np.arange(80) % 2
    features = random.normal(size=(80, 6)).astype(np.float32) + 2 * labels[:, None]
    return features.astype(np.float32), labels.astype(np.int64)


@pytest.fixture
def job(rows, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    X, y = rows
    return Job((X[:50], y[:50]), (X[50:], y[50:]), ("cat", "dog"), "accuracy", 0)


def requests(*heads):
    return [TrialRequest(number, HeadSettings(**head)) for number, head in enumerate(heads, start=10)]


# ---- carrying out ----------------------------------------------------------------------------------------


def test_a_trial_says_its_scores_and_which_rows_it_gets_right(job):
    ((number, outcome, _),) = run_trials(job, requests({"type": "LogisticRegression"}))
    X, y = job.validation
    right = make_pipeline(StandardScaler(), LogisticRegression()).fit(*job.train).predict(X) == y
    assert number == 10
    assert outcome.value == outcome.scores["accuracy"] == right.mean()
    assert np.array_equal(unpack(outcome.correct, len(y)), right)
    assert (outcome.reason, outcome.stopped, outcome.epochs) == (None, False, None)


def test_trials_learn_from_views_and_are_scored_on_photos(job):
    X, y = job.train
    views = np.stack([X, X + 0.1, X - 0.1], axis=1).reshape(-1, X.shape[1])
    in_views = replace(job, train=(views, y.repeat(3)), views=3)
    heads = (
        {"type": "KNeighborsClassifier"},
        {"type": "dense", "epochs": 3, "learning_rate": 0.01, "early_stopping": False},
    )
    for number, outcome, _ in run_trials(in_views, requests(*heads)):
        assert len(unpack(outcome.correct, len(job.validation[1]))) == 30
        if number == 10:  # a neighbour remembers its rows
            assert outcome.size > views.size
        else:
            alone = in_views.head(requests(heads[1])[0].settings).fit(views, y.repeat(3), views=3)
            assert outcome.value == alone.score(*job.validation)


def test_a_head_that_fails_says_why_and_the_others_go_on(job):
    heads = {"type": "KNeighborsClassifier", "n_neighbors": 1000}, {"type": "GaussianNB"}
    results = list(run_trials(job, requests(*heads)))
    assert [number for number, _, _ in results] == [10, 11]
    assert results[0][1].value is None
    assert "n_neighbors = 1000" in results[0][1].reason
    assert results[1][1].value > 0.9


def test_a_score_that_is_not_defined_is_a_failure(job):
    X, y = job.validation
    one_class = Job(job.train, (X[y == 0], y[y == 0]), job.classes, "roc_auc", 0)
    ((_, outcome, _),) = run_trials(one_class, requests({"type": "GaussianNB"}))
    assert outcome.value is None
    assert "no roc_auc" in outcome.reason


def test_class_weights_go_by_the_names_of_the_classes(job):
    heads = [
        {"type": "LogisticRegression", "C": 1e-4, "class_weight": {"cat": 1.0, "dog": weight}}
        for weight in (1e-3, 1e3)
    ]
    _, y = job.validation
    shares = []
    for _, outcome, _ in run_trials(job, requests(*heads)):
        correct = unpack(outcome.correct, len(y))
        shares.append(np.where(correct, y, 1 - y).mean())
    assert shares[0] < 0.5 < shares[1]


def test_warnings_are_handed_over_once(job):
    head = {"type": "LogisticRegression", "max_iter": 1}
    ((_, _, sentences),) = run_trials(job, requests(head))
    assert len([sentence for sentence in sentences if "converge" in sentence]) == 1


def test_processes_beside_each_other_give_the_same_in_the_order_asked(job, monkeypatch):
    heads = [{"type": "LogisticRegression", "C": 10.0**power} for power in range(-3, 3)]
    alone = [(number, outcome.scores) for number, outcome, _ in run_trials(job, requests(*heads))]
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    beside = [(number, outcome.scores) for number, outcome, _ in run_trials(job, requests(*heads))]
    assert [number for number, _ in beside] == list(range(10, 16))
    for (_, one), (_, other) in zip(alone, beside, strict=True):
        assert one == pytest.approx(other)


def test_dense_heads_of_one_stack_are_halved_and_say_their_epochs(job):
    heads = [{"type": "dense", "epochs": 4, "learning_rate": 10.0**-power} for power in range(1, 9)]
    outcomes = [outcome for _, outcome, _ in run_trials(job, requests(*heads))]
    assert sorted(outcome.epochs for outcome in outcomes) == [1] * 4 + [2] * 2 + [4] * 2
    assert all(outcome.stopped == (outcome.epochs < 4) for outcome in outcomes)
    assert max(outcomes, key=lambda outcome: outcome.value).epochs == 4
    assert {outcome.size for outcome in outcomes} == {6 + 1 + 2}  # kernel, bias, classes


def test_one_dense_head_that_does_not_go_with_the_data_does_not_fail_the_others(job):
    heads = {"type": "dense", "epochs": 2, "class_weight": {"bird": 2.0}}, {"type": "dense", "epochs": 2}
    results = list(run_trials(job, requests(*heads)))
    assert [outcome.value is None for _, outcome, _ in results] == [True, False]
    assert "'bird'" in results[0][1].reason


# ---- which heads are stopped -----------------------------------------------------------------------------


def run_halving(accuracies, epochs=20, metric="accuracy", losses=None):
    """Run a stack that only measures; return after how many epochs each head was done, and the object."""
    halving = Halving([epochs] * len(accuracies), metric)
    losses = losses or [1.0] * len(accuracies)
    ran, going = {}, set(range(len(accuracies)))
    for epoch in range(1, epochs + 1):
        measures = {n: {"val_accuracy": accuracies[n], "val_loss": losses[n]} for n in sorted(going)}
        for loser in halving(epoch, measures):
            going.remove(loser)
            ran[loser] = epoch
    return ran | dict.fromkeys(going, epochs), halving


def test_the_worse_half_stops_after_a_quarter_and_again_after_half_of_the_epochs():
    ran, halving = run_halving([n / 16 for n in range(16)])
    assert ran == dict.fromkeys(range(8), 5) | dict.fromkeys(range(8, 12), 10) | dict.fromkeys(
        range(12, 16), 20
    )
    assert halving.stopped == set(range(12))


@given(st.lists(st.floats(0, 1), min_size=8, max_size=40), st.integers(4, 30))
def test_the_best_head_is_never_stopped(accuracies, epochs):
    ran, _ = run_halving(accuracies, epochs)
    assert ran[accuracies.index(max(accuracies))] == epochs
    assert sum(end == epochs for end in ran.values()) < len(accuracies)


def test_fewer_than_eight_heads_are_left_alone():
    assert set(run_halving([n / 7 for n in range(7)])[0].values()) == {20}


def test_two_epochs_have_one_rung_and_one_epoch_none():
    assert set(run_halving([n / 8 for n in range(8)], epochs=2)[0].values()) == {1, 2}
    assert set(run_halving([n / 8 for n in range(8)], epochs=1)[0].values()) == {1}


def test_equal_accuracies_are_told_apart_by_the_loss_and_log_loss_goes_by_it_first():
    losses = [float(n) for n in range(8)]
    assert run_halving([0.5] * 8, losses=losses)[1].stopped >= {4, 5, 6, 7}
    rising = [n / 8 for n in range(8)]
    assert 0 in run_halving(rising, losses=losses)[1].stopped
    assert 0 not in run_halving(rising, metric="log_loss", losses=losses)[1].stopped


# ---- what is simple --------------------------------------------------------------------------------------


def test_weights_and_remembered_rows_count(rows):
    X, y = rows
    logistic = LogisticRegression().fit(X, y)
    assert size_of(logistic) == 6 + 1 + 2 + 1  # weights, intercept, classes, n_iter_
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    assert size_of(scaled) == size_of(scaled[0]) + size_of(logistic) > size_of(logistic)
    assert size_of(KNeighborsClassifier().fit(X, y)) > X.size


def test_a_deeper_tree_is_less_simple(rows):
    X, y = rows
    noisy = y ^ (np.arange(len(y)) % 5 == 0)
    sizes = [size_of(DecisionTreeClassifier(max_depth=depth).fit(X, noisy)) for depth in (1, 3, 6)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_principal_components_are_found_once_for_all_heads_that_ask(job, tmp_path):
    heads = [{"type": "LogisticRegression", "pca": 3, "C": 10.0**power} for power in range(-1, 2)]
    kept = list(run_trials(replace(job, scratch=str(tmp_path)), requests(*heads)))
    assert len(list(tmp_path.rglob("output.pkl"))) == 2  # what Pool gave, and what PCA gave
    for one, other in zip(kept, run_trials(job, requests(*heads)), strict=True):
        assert one[1].scores == pytest.approx(other[1].scores)


_CHILD = """
import os, time
from featcache.search.fitting import _end_with
_end_with(os.getppid())
print("watching", flush=True)
time.sleep(60)
"""
_PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {_CHILD!r}], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_a_worker_ends_soon_after_its_parent_was_killed():
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    ended = time.monotonic() + 15
    while is_running(worker):
        assert time.monotonic() < ended, "the worker outlived its parent"
        time.sleep(0.05)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
