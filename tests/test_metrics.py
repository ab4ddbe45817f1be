"""Scores say what they mean, and how sure they are."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.svm import SVC

from featcache.metrics import score_head, scores, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe, Two-sided confidence intervals for the single proportion, Stat. Med. 17 (1998), table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.data(), st.integers(1, 10**6), st.floats(0.5, 0.999))
def test_wilson_holds_the_share_and_stays_in_range(data, n, confidence):
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n, confidence)
    assert 0.0 <= low <= successes / n <= high <= 1.0
    assert low < high


@given(st.integers(1, 1000))
def test_wilson_narrows_with_more_rows(n):
    low, high = wilson_interval(n, 2 * n)
    more_low, more_high = wilson_interval(10 * n, 20 * n)
    assert more_high - more_low < high - low


def test_nothing_tried_tells_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("successes", "n", "confidence"), [(-1, 5, 0.9), (6, 5, 0.9), (1, 5, 1.0), (1, 5, 0.0)]
)
def test_impossible_counts_are_refused(successes, n, confidence):
    with pytest.raises(ValueError, match=r"successes|confidence"):
        wilson_interval(successes, n, confidence)


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
    assert found["log_loss"] is None
    assert found["roc_auc"] is None


@pytest.mark.parametrize(
    ("y", "predicted", "message"),
    [([], [], "no rows"), ([0, 1], [0], "shapes"), ([0, 7], [0, 1], r"\[7\] are none of the classes")],
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
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"):
        assert found[name] is None or 0.0 <= found[name] <= 1.0
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert math.isfinite(found["log_loss"])


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


def test_decision_values_per_pair_of_classes_do_not_rank():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 3)), np.arange(80) % 4
    head = SVC(decision_function_shape="ovo").fit(X, y)
    assert score_head(head, X, y)["roc_auc"] is None
