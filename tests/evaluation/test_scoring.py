"""Scores say what they mean, and how sure they are."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)
from sklearn.svm import SVC

from featcache.evaluation import full_scores, intervals, score_head, score_head_fully, scores, wilson_interval


def test_two_classes():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    found = scores(["a", "a", "b", "b"], probabilities, ["a", "a", "a", "b"], ["a", "b"])
    assert found["n"] == 4
    assert found["accuracy"] == 0.75
    assert (found["accuracy_low"], found["accuracy_high"]) == wilson_interval(3, 4)
    assert found["balanced_accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.6, 0.3, 0.8])))
    assert found["roc_auc"] == 0.75
    assert found["ece"] == pytest.approx((0.1 + 0.4 + 0.7 + 0.2) / 4)  # every row in a bin of its own


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_is_that_of_scikit_learn_for_impossible_labels_too(dtype):
    probabilities = np.array([[1, 0], [0.25, 0.75], [1, 0]], dtype)
    found = scores([0, 1, 1], probabilities, [0, 1, 0], [0, 1])
    assert found["log_loss"] == pytest.approx(log_loss([0, 1, 1], probabilities), rel=1e-6)


def test_float32_probabilities_in_float64_make_no_noise():
    probabilities = np.array([[0.1, 0.9], [0.7, 0.3]], np.float32).astype(float) * (1 + 1e-7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scores([0, 1], probabilities, [1, 0], [0, 1])["log_loss"] > 0


@pytest.mark.parametrize("wrong", [-0.1, 1.5, np.nan])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match="between 0 and 1"):
        scores([0, 1], np.array([[0.5, 0.5], [0.5, wrong]]), [0, 1], [0, 1])


def test_probabilities_of_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"2 rows of 2 classes need \(2, 2\)"):
        scores([0, 1], np.full((2, 3), 1 / 3), [0, 1], [0, 1])


def test_many_classes_give_the_mean_of_one_against_the_rest():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 60)
    y = rng.integers(0, 4, 60)
    found = scores(y, probabilities, probabilities.argmax(axis=1), np.arange(4))
    assert found["roc_auc"] == pytest.approx(roc_auc_score(y, probabilities, multi_class="ovr"))
    assert found["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(y, probabilities.argmax(axis=1))
    )


def test_a_class_that_is_not_there_leaves_the_other_scores():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores([0, 0, 0], np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]), [0, 0, 1], [0, 1])
    assert found["roc_auc"] is None
    assert found["accuracy"] == found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["log_loss"] > 0


def test_without_probabilities_there_is_no_log_loss():
    found = scores([0, 1], None, [0, 1], [0, 1])
    assert found["log_loss"] is found["ece"] is None
    assert found["roc_auc"] is None


@pytest.mark.parametrize(
    ("y", "predicted", "message"),
    [
        ([], [], "no rows"),
        ([0, 1], [0], "shapes"),
        ([0, 7], [0, 1], r"\[7\] are not among the classes"),
        ([0, 1], [0, 7], r"\[7\] are not among the classes"),
    ],
)
def test_what_cannot_be_scored_is_refused(y, predicted, message):
    with pytest.raises(ValueError, match=message):
        scores(y, None, predicted, [0, 1])


@st.composite
def predictions(draw):
    classes = draw(st.integers(2, 4))
    n = draw(st.integers(1, 12))
    labels = st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)
    raw = draw(st.lists(st.integers(0, 5), min_size=n * classes, max_size=n * classes))
    probabilities = np.array(raw, float).reshape(n, classes) + 1e-3
    return draw(labels), probabilities / probabilities.sum(axis=1, keepdims=True), draw(labels), classes


@settings(deadline=None)  # the first call warms scikit-learn up
@given(predictions())
def test_scores_are_plain_finite_numbers(made):
    y, probabilities, predicted, classes = made
    found = scores(y, probabilities, predicted, list(range(classes)))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "ece"):
        assert found[name] is None or 0.0 <= found[name] <= 1.0
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert math.isfinite(found["log_loss"])


# All scores


@settings(deadline=None, max_examples=40)
@given(predictions())
def test_full_scores_are_plain_finite_numbers_too(made):
    y, probabilities, predicted, classes = made
    found = full_scores(y, probabilities, predicted, list(range(classes)), resamples=20)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    cheap = scores(y, probabilities, predicted, list(range(classes)))
    assert {name: found[name] for name in cheap} == cheap


@pytest.fixture
def answers():
    """Labels, probabilities, predictions and classes; the class "d" has no rows, "c" is never predicted."""
    rng = np.random.default_rng(0)
    y, predicted = np.array(list("aabbbc") * 10), np.array(list("ababba") * 10)
    return y, rng.dirichlet(np.ones(4), 60), predicted, ["a", "b", "c", "d"]


def test_full_scores_hold_the_confusion_of_all_classes(answers):
    y, _, predicted, classes = answers
    confusion = full_scores(*answers, resamples=10)["confusion"]
    assert confusion == confusion_matrix(y, predicted, labels=classes).tolist()
    assert confusion[2] == [10, 0, 0, 0]  # rows are the true classes


def test_full_scores_hold_what_became_of_each_class(answers):
    y, _, predicted, classes = answers
    found = full_scores(*answers, resamples=10)["per_class"]
    wanted = precision_recall_fscore_support(y, predicted, labels=classes, zero_division=np.nan)
    wanted = [[None if math.isnan(number) else number for number in column] for column in wanted]
    for column, name in zip(wanted, ("precision", "recall", "f1", "n"), strict=True):
        assert [one[name] for one in found] == pytest.approx(column)
    assert [one["class"] for one in found] == classes
    assert found[2]["precision"] is None
    assert found[3]["recall"] is found[3]["f1"] is None


def test_full_scores_hold_the_intervals(answers):
    found = full_scores(*answers, resamples=50, seed=3)
    for name, bounds in intervals(*answers, resamples=50, seed=3).items():
        assert (found[f"{name}_low"], found[f"{name}_high"]) == bounds
    assert found["macro_f1_low"] < found["macro_f1"] < found["macro_f1_high"]
    assert found["roc_auc_low"] is None  # a class is missing


# Weights and groups


@settings(deadline=None, max_examples=40)
@given(predictions(), st.data())
def test_a_weight_counts_as_so_many_rows(made, data):
    y, probabilities, predicted, classes = made
    counts = st.lists(st.integers(0, 3), min_size=len(y), max_size=len(y)).filter(any)
    times = np.array(data.draw(counts))
    written_out = [np.repeat(column, times, axis=0) for column in (y, probabilities, predicted)]
    weighted = scores(y, probabilities, predicted, list(range(classes)), weights=times)
    repeated = scores(*written_out, list(range(classes)))
    assert weighted["n"] == np.count_nonzero(times)
    for name in repeated.keys() - {"n", "accuracy_low", "accuracy_high"}:
        assert weighted[name] == pytest.approx(repeated[name]), name
    assert 0 <= weighted["accuracy_low"] <= weighted["accuracy_high"] <= 1


def test_full_scores_of_weighted_and_grouped_rows(answers):
    y, _, predicted, classes = answers
    weights, groups = np.tile([1.0, 2, 3], 20), np.arange(60) // 6
    found = full_scores(*answers, resamples=100, weights=weights, groups=groups)
    assert (found["n"], found["groups"], found["weighted"]) == (60, 10, True)
    assert found["confusion"] == confusion_matrix(y, predicted, labels=classes).tolist()
    wanted = precision_recall_fscore_support(
        y, predicted, labels=classes, zero_division=np.nan, sample_weight=weights
    )
    for column, name in zip(wanted, ("precision", "recall", "f1"), strict=False):
        numbers = [None if math.isnan(number) else number for number in column]
        assert [one[name] for one in found["per_class"]] == pytest.approx(numbers)
    assert [one["n"] for one in found["per_class"]] == [20, 30, 10, 0]
    assert found["per_class"][3]["recall_low"] is None
    for name, bounds in intervals(*answers, resamples=100, weights=weights, groups=groups).items():
        assert (found[f"{name}_low"], found[f"{name}_high"]) == bounds


def test_without_weights_and_groups_nothing_is_said_of_them(answers):
    plain = full_scores(*answers, resamples=10)
    assert not {"groups", "weighted"} & plain.keys()
    assert full_scores(*answers, resamples=10, weights=np.full(60, 2.0)) == plain
    single = full_scores(*answers, resamples=10, groups=np.arange(60))
    assert single == plain | {"groups": 60}
    low, high = wilson_interval(20, 30)
    assert (plain["per_class"][1]["recall_low"], plain["per_class"][1]["recall_high"]) == (low, high)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(1e-3, 1e6), min_size=8, max_size=8))
def test_shares_of_weights_stay_shares(weights):
    y = [0, 0, 0, 0, 1, 1, 1, 2]
    found = full_scores(y, np.eye(3)[y], y, [0, 1, 2], resamples=5, weights=weights)
    shares = ("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "macro_f1", "roc_auc")
    assert all(0 <= found[name] <= 1 for name in (*shares, "average_precision"))
    assert all(0 <= one[name] <= 1 for one in found["per_class"] for name in ("precision", "recall", "f1"))


@pytest.mark.parametrize(
    "weights", [[1.0, -1.0], [0.0, 0.0], [1.0, math.nan], [math.inf, 1.0], [1.0]], ids=str
)
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weight"):
        scores([0, 1], None, [0, 1], [0, 1], weights=weights)


def test_groups_of_another_length_are_refused():
    with pytest.raises(ValueError, match="one group per row"):
        scores([0, 1], None, [0, 1], [0, 1], groups=[0])


# Heads


@pytest.fixture
def blobs():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    return rng.normal(size=(90, 3)) + np.eye(3)[y], y


def test_a_head_with_probabilities(blobs):
    X, y = blobs
    head = LogisticRegression().fit(X, y)
    found = score_head(head, X, y)
    assert found["accuracy"] == head.score(X, y)
    assert found["log_loss"] is not None
    assert found["roc_auc"] == pytest.approx(roc_auc_score(y, head.predict_proba(X), multi_class="ovr"))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_head_with_decision_values_only_still_has_a_roc_auc(blobs, classes):
    X, y = blobs[0][blobs[1] < classes], blobs[1][blobs[1] < classes]
    found = score_head(RidgeClassifier().fit(X, y), X, y)
    assert found["log_loss"] is None
    assert 0.5 < found["roc_auc"] <= 1.0


@pytest.mark.parametrize("classes", [3, 4])  # three classes have three pairs
def test_decision_values_per_pair_of_classes_do_not_rank(classes):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 3)), np.arange(80) % classes
    head = SVC(decision_function_shape="ovo").fit(X, y)
    assert score_head(head, X, y)["roc_auc"] is None


def test_intervals_of_a_head_come_only_when_asked_for(blobs):
    X, y = blobs
    head = LogisticRegression().fit(X, y)
    cheap, more, full = score_head(head, X, y), score_head(head, X, y, True), score_head_fully(head, X, y)
    assert set(cheap) == {
        *("n", "accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy"),
        *("macro_f1", "log_loss", "roc_auc", "average_precision", "ece"),
    }
    metrics = ("balanced_accuracy", "macro_f1", "log_loss", "roc_auc", "average_precision", "ece")
    assert set(more) - set(cheap) == {f"{name}_{end}" for name in metrics for end in ("low", "high")}
    assert full == more | {"confusion": full["confusion"], "per_class": full["per_class"]}
    assert np.trace(full["confusion"]) == round(full["accuracy"] * 90)
