"""Which head is best, what speaks against it, and on which photos heads are compared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from featcache.evaluation import full_scores
from featcache.evaluation.choosing import (
    FEWEST_VALIDATION_PHOTOS,
    Comparison,
    comparison_for,
    goodness,
    missing_for,
    rank,
    weakness,
)


def scores_of(true, predicted):
    return full_scores(np.array(true), None, np.array(predicted), [0, 1, 2], resamples=10)


MIXED = scores_of([0, 1, 2], [0, 1, 0])


def test_a_lower_log_loss_and_a_higher_score_of_any_other_kind_is_better():
    assert goodness({"log_loss": 0.1}, "log_loss") > goodness({"log_loss": 0.2}, "log_loss")
    assert goodness({"roc_auc": 0.9}, "roc_auc") > goodness({"roc_auc": 0.8}, "roc_auc")
    for missing in ({}, {"log_loss": None}, {"log_loss": float("nan")}):
        assert goodness(missing, "log_loss") == -float("inf")


def test_among_equals_in_the_metric_log_loss_decides_and_then_accuracy():
    good = MIXED | {"macro_f1": 0.5, "log_loss": 0.2, "accuracy": 0.5}
    assert rank(good, "macro_f1") > rank(good | {"log_loss": 0.3}, "macro_f1")
    assert rank(good, "macro_f1") > rank(good | {"accuracy": 0.4}, "macro_f1")
    assert rank(good, "macro_f1") < rank(good | {"macro_f1": 0.6, "log_loss": 9.0}, "macro_f1")


def test_a_head_of_one_class_comes_after_any_other():
    constant = scores_of([0, 0, 0, 1], [0, 0, 0, 0]) | {"log_loss": 0.1}
    poor = scores_of([0, 0, 0, 1], [1, 1, 1, 0]) | {"log_loss": 5.0}
    for metric in ("log_loss", "accuracy"):
        assert rank(poor, metric) > rank(constant, metric)


def test_weakness_names_the_only_class_or_the_largest():
    assert weakness(scores_of([0, 0, 0, 1], [0, 0, 0, 0])) == "it predicts one class only: 0"
    text = weakness(scores_of([0, 0, 0, 1], [0, 0, 1, 1]))
    assert text == "its accuracy is not above that of always answering 0 (75.0%)"
    assert weakness(scores_of([0, 0, 0, 1], [0, 0, 0, 1])) is None


@pytest.mark.parametrize(
    ("metric", "head", "classes", "missing"),
    [
        ("accuracy", RidgeClassifier(), 2, None),
        ("log_loss", LogisticRegression(), 2, None),
        ("log_loss", RidgeClassifier(), 2, "no probabilities"),
        ("average_precision", RidgeClassifier(), 3, None),
        ("average_precision", KNeighborsClassifier(), 3, None),
        ("roc_auc", SVC(decision_function_shape="ovo"), 2, None),
        ("roc_auc", SVC(decision_function_shape="ovo"), 3, "no decision value for each class"),
    ],
)
def test_what_a_head_lacks_for_a_metric(metric, head, classes, missing):
    assert missing_for(metric, head, classes) == missing


@given(st.integers(0, 2000), st.integers(1, 5000), st.integers(1, 400))
def test_few_validation_photos_are_replaced_by_folds_that_every_class_can_fill(validation, train, rarest):
    found = comparison_for(validation, train, rarest)
    few = 0 < validation < FEWEST_VALIDATION_PHOTOS
    assert (found.folds is not None) == (few and rarest >= 3)
    assert found.folds is None or 3 <= found.folds <= min(5, rarest)
    assert bool(found.reason) == few


def test_what_needs_validation_photos_keeps_them():
    found = comparison_for(40, 160, 20, "[finetune]")
    assert found.folds is None
    assert "because [finetune] needs them" in found.reason
    assert comparison_for(400, 160, 20, "[finetune]") == Comparison(None)
