"""Calibrated heads say how sure they are, and change nothing else."""

import copy
import warnings

import numpy as np
import pytest
from scipy.special import logit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.svm import SVC

from featcache.errors import TrainingError
from featcache.evaluation import score_head
from featcache.heads.calibration import calibrated
from featcache.heads.dense.head import DenseHead
from featcache.heads.estimators import build_head
from featcache.heads.persistence import load_head, save_head
from featcache.recipe import HeadSettings

N = 240


def photos(classes, seed=0, labels=None):
    """Noisy features (n, 2, 2, 3) whose classes overlap, and labels."""
    y = np.arange(N) % classes
    X = np.random.default_rng(seed).normal(size=(N, 2, 2, 3)) + 0.6 * np.eye(classes, 3)[y][:, None, None]
    return X.astype(np.float32), y if labels is None else np.array(labels)[y]


def overconfident(classes, units=(), labels=None):
    """A Dense head without training: the right direction, logits five times too large."""
    outputs = 1 if classes == 2 else classes
    head = DenseHead(units=units, pooling="avg")
    head.classes_ = np.arange(classes) if labels is None else np.array(labels)
    head.features_shape_, head.n_features_in_ = (2, 2, 3), 12
    kernel = np.eye(3, classes, dtype=np.float32) * 30
    head.coefs_ = [kernel[:, 1:] - kernel[:, :1] if outputs == 1 else kernel]
    head.intercepts_ = [np.full(outputs, 0.5, np.float32)]
    if units:
        head.coefs_, head.intercepts_ = (
            [np.eye(3, dtype=np.float32), *head.coefs_],
            [np.ones(3, np.float32), *head.intercepts_],
        )
    head.before_, head.history_, head.best_epoch_, head.n_iter_ = None, {"loss": [0.0]}, 1, 1
    return head


def head_of(kind, classes, labels=None, **settings):
    X, y = photos(classes, seed=1, labels=labels)
    return build_head(HeadSettings(type=kind, **settings), 0).fit(X, y)


# Dense heads


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("units", [(), (3,)])
def test_a_dense_head_gets_the_temperature_with_the_least_log_loss(classes, units):
    head, (X, y) = overconfident(classes, units), photos(classes)
    result = calibrated(head, X, y)
    assert result.temperature_ > 2
    logits = head.decision_function(X).astype(float)
    logits = np.stack([0 * logits, logits], axis=1) if classes == 2 else logits

    def loss(temperature):
        shifted = np.exp(logits / temperature - (logits / temperature).max(axis=1, keepdims=True))
        return log_loss(y, shifted / shifted.sum(axis=1, keepdims=True))

    best = loss(result.temperature_)
    assert score_head(result, X, y)["log_loss"] == pytest.approx(best, rel=1e-5)
    assert all(best < loss(result.temperature_ * factor) for factor in (0.5, 0.98, 1.02, 2))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_dense_head_predicts_the_same_labels_with_honest_probabilities_for_new_photos(classes):
    head, new = overconfident(classes), photos(classes, seed=2)
    result = calibrated(head, *photos(classes))
    np.testing.assert_array_equal(result.predict(new[0]), head.predict(new[0]))
    before, after = score_head(head, *new), score_head(result, *new)
    assert after["log_loss"] < before["log_loss"]
    assert after["ece"] < before["ece"] / 2
    assert after["accuracy"] == before["accuracy"]


def test_the_given_dense_head_stays_as_it_was():
    head, (X, y) = overconfident(3), photos(3)
    kept = copy.deepcopy(head)
    result = calibrated(head, X, y)
    assert not hasattr(head, "temperature_")
    np.testing.assert_array_equal(head.coefs_[-1], kept.coefs_[-1])
    np.testing.assert_array_equal(head.intercepts_[-1], kept.intercepts_[-1])
    np.testing.assert_allclose(
        result.decision_function(X) * result.temperature_, head.decision_function(X), rtol=1e-4, atol=1e-4
    )
    assert result.coefs_[-1].dtype == result.intercepts_[-1].dtype == np.float32


def test_calibrating_twice_changes_nothing_more():
    X, y = photos(3)
    once = calibrated(overconfident(3), X, y)
    assert calibrated(once, X, y).temperature_ == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", ["dense", "LogisticRegression"])
def test_a_weight_counts_as_so_many_photos(kind):
    head = overconfident(3) if kind == "dense" else head_of(kind, 3, [0, 1, 2])
    X, y = photos(3)
    times = np.random.default_rng(0).integers(1, 9, len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weighted = calibrated(head, X, y, times.astype(float)).predict_proba(X)
    repeated = calibrated(head, np.repeat(X, times, 0), np.repeat(y, times)).predict_proba(X)
    np.testing.assert_allclose(weighted, repeated, atol=1e-3)
    assert np.abs(weighted - calibrated(head, X, y).predict_proba(X)).max() > 3e-3


def test_a_calibrated_dense_head_comes_back_from_its_file(tmp_path):
    X, y = photos(2, labels=["cat", "dog"])
    result = calibrated(overconfident(2, labels=["cat", "dog"]), X, y)
    loaded = load_head(tmp_path / save_head(result, tmp_path))
    np.testing.assert_array_equal(loaded.predict_proba(X), result.predict_proba(X))
    np.testing.assert_allclose(
        result.to_keras().predict(X, verbose=0)[:, 0], result.predict_proba(X)[:, 1], atol=1e-5
    )


# scikit-learn's heads


@pytest.mark.parametrize("kind", ["LogisticRegression", "LinearSVC", "GaussianNB", "RidgeClassifier"])
@pytest.mark.parametrize("labels", [[0, 1], [3, 7], ["cat", "dog"], [0, 1, 2]], ids=str)
def test_a_scikit_learn_head_keeps_its_labels_and_comes_back_from_its_file(tmp_path, kind, labels):
    head, (X, y) = head_of(kind, len(labels), labels), photos(len(labels), labels=labels)
    result = calibrated(head, X, y)
    loaded = load_head(tmp_path / save_head(result, tmp_path))
    new = photos(len(labels), seed=2, labels=labels)
    np.testing.assert_array_equal(result.predict(new[0]), head.predict(new[0]))
    np.testing.assert_array_equal(loaded.predict(new[0]), head.predict(new[0]))
    np.testing.assert_array_equal(loaded.predict_proba(new[0]), result.predict_proba(new[0]))
    np.testing.assert_array_equal(loaded.classes_, labels)
    assert score_head(result, *new)["log_loss"] < np.log(len(labels))
    if hasattr(head, "predict_proba"):
        assert score_head(result, X, y)["log_loss"] < score_head(head, X, y)["log_loss"]


def test_both_ways_find_the_same_temperature():
    """A linear head in both forms: dividing its logits must come out alike."""
    X, y = photos(2)
    head = head_of("LogisticRegression", 2, C=100.0, pooling="avg", scale=False)
    dense = overconfident(2)
    linear = head[-1]
    dense.coefs_, dense.intercepts_ = (
        [linear.coef_.T.astype(np.float32)],
        [linear.intercept_.astype(np.float32)],
    )
    np.testing.assert_allclose(
        logit(calibrated(dense, X, y).predict_proba(X)[:, 1]),
        # scikit-learn takes twice the decision value, and finds half the factor
        logit(calibrated(head, X, y).predict_proba(X)[:, 1]),
        rtol=1e-2,
        atol=1e-3,
    )


def test_the_given_scikit_learn_head_is_not_fitted_again():
    X, y = photos(2)
    head = head_of("LogisticRegression", 2)
    before = head[-1].coef_.copy()
    result = calibrated(head, X, y)
    assert isinstance(result, CalibratedClassifierCV)
    np.testing.assert_array_equal(head[-1].coef_, before)


# What is refused


def both_kinds(classes=3):
    return overconfident(classes), head_of("LogisticRegression", classes)


@pytest.mark.parametrize("which", [0, 1])
def test_too_few_rows_of_a_class_are_refused(which):
    head, (X, y) = both_kinds()[which], photos(3)
    few = np.flatnonzero(y == 2)[:1]
    for rows, number in ((y != 2, 0), (np.union1d(np.flatnonzero(y != 2), few), 1)):
        with pytest.raises(TrainingError, match=f"class 2 has {number} validation rows"):
            calibrated(head, X[rows], y[rows])


@pytest.mark.parametrize("which", [0, 1])
def test_two_rows_per_class_are_enough(which):
    head, (X, y) = both_kinds()[which], photos(3)
    rows = np.union1d(np.flatnonzero(y != 2), np.flatnonzero(y == 2)[:2])
    assert calibrated(head, X[rows], y[rows]).predict_proba(X).shape == (N, 3)


@pytest.mark.parametrize("which", [0, 1])
def test_labels_and_rows_that_do_not_fit_are_refused(which):
    head, (X, y) = both_kinds()[which], photos(3)
    with pytest.raises(TrainingError, match=r"\[8\] are none of the head's classes \[0, 1, 2\]"):
        calibrated(head, X, np.where(y == 0, 8, y))
    with pytest.raises(TrainingError, match="one label per row"):
        calibrated(head, X, y[:-1])


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_head_without_mistakes_has_no_best_temperature(which, classes):
    head, (X, _) = both_kinds(classes)[which], photos(classes)
    with pytest.raises(TrainingError, match="right about every validation row"):
        calibrated(head, X, head.predict(X))


@pytest.mark.parametrize("which", [0, 1])
def test_a_head_that_is_always_wrong_has_no_best_temperature(which):
    head, (X, _) = both_kinds(2)[which], photos(2)
    with pytest.raises(TrainingError, match="no better than guessing"):
        calibrated(head, X, 1 - head.predict(X))


def test_a_head_with_nothing_to_scale_is_refused():
    X, y = photos(3)
    with pytest.raises(TrainingError, match="neither probabilities nor decision values"):
        calibrated(head_of("Perceptron", 3).set_params(classifier=OnlyLabels().fit(X, y)), X, y)


class OnlyLabels(LogisticRegression):
    """A classifier that gives labels and nothing else."""

    @property
    def predict_proba(self):
        raise AttributeError

    decision_function = predict_proba

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self


def test_decision_values_of_pairs_are_refused():
    X, y = photos(3)
    X = X.reshape(N, -1)
    with pytest.raises(TrainingError, match="decision_function_shape = 'ovr'"):
        calibrated(SVC(decision_function_shape="ovo").fit(X, y), X, y)
    assert calibrated(SVC().fit(X[::2], y[::2]), X, y).predict_proba(X).shape == (N, 3)


def test_an_older_scikit_learn_is_told(monkeypatch):
    constraints = {
        **CalibratedClassifierCV._parameter_constraints,
        "method": [{"sigmoid", "isotonic"}.__class__],
    }
    monkeypatch.setattr(CalibratedClassifierCV, "_parameter_constraints", constraints)
    with pytest.raises(TrainingError, match=r"scikit-learn 1\.8 or later"):
        calibrated(head_of("LogisticRegression", 2), *photos(2))
