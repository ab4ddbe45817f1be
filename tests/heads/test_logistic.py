"""Logistic regression chooses its penalty and scaling as it says, and is scikit-learn's for a given C."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_score

from featcache.errors import TrainingError
from featcache.heads.calibration import calibrated
from featcache.heads.estimators import build_head
from featcache.heads.linear import linear_form, load_linear
from featcache.heads.logistic import FALLBACK_C, LogisticHead
from featcache.heads.logistic_path import Coordinates, Problem, draw_folds, losses_along, scored_rows
from featcache.heads.persistence import load_head, save_head
from featcache.heads.probabilities import probabilities_network
from featcache.heads.vectors import unit_rows
from featcache.recipe import HeadSettings


def photos(n=120, d=40, classes=2, seed=0, noise=1.5):
    """Features of differing scale, of which the first few tell the classes apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    features = rng.normal(size=(n, d)) * np.linspace(0.2, 3, d) + 2
    features[:, :classes] += 2 * np.eye(classes)[labels] + noise * rng.normal(size=(n, classes))
    return features.astype(np.float32), labels


def scaled(X, scale):
    """The features as the penalty sees them, written down independently."""
    rows = X.astype(np.float64)
    if scale == "l2":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows - rows.mean(axis=0)
    if scale == "standard":
        rows = rows / np.sqrt(rows.var(axis=0) + rows.var(axis=0).mean())
    return rows / np.sqrt(rows.var(axis=0).mean())


@pytest.mark.parametrize("scale", ["l2", "standard", "none"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("shape", [(120, 40), (30, 90)], ids=["more rows", "more features"])
def test_for_a_given_c_it_is_the_logistic_regression_of_scikit_learn(scale, classes, shape):
    X, y = photos(*shape, classes)
    head = LogisticHead(C=0.3, scale=scale).fit(X, y)
    theirs = LogisticRegression(C=0.3, tol=1e-8, max_iter=5000).fit(scaled(X, scale), y)
    np.testing.assert_allclose(head.predict_proba(X), theirs.predict_proba(scaled(X, scale)), atol=2e-3)
    assert (head.C_, head.scale_, head.losses_) == (0.3, scale, {})
    assert head.coef_.shape == (1 if classes == 2 else classes, shape[1])


def test_sample_weights_count_as_repeated_rows():
    X, y = photos()
    weights = 1 + (np.arange(len(y)) % 3)
    weighted = LogisticHead(C=0.1, scale="none").fit(X, y, weights)
    again = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit(scaled(X, "none"), y, weights)
    np.testing.assert_allclose(weighted.predict_proba(X), again.predict_proba(scaled(X, "none")), atol=2e-3)


def test_class_weights_are_weights_of_the_rows():
    X, y = photos()
    X, y = X[y * np.arange(len(y)) < 60], y[y * np.arange(len(y)) < 60]
    balanced = LogisticHead(C=0.1, scale="l2", class_weight="balanced").fit(X, y)
    by_hand = LogisticHead(C=0.1, scale="l2").fit(X, y, len(y) / 2 / np.bincount(y)[y])
    np.testing.assert_allclose(balanced.coef_, by_hand.coef_, atol=1e-6)


def test_the_chosen_c_has_the_least_loss_and_weak_penalties_are_not_tried_where_strong_ones_do():
    X, y = photos(noise=6)
    head = LogisticHead(random_state=0).fit(X, y)
    assert set(head.losses_) == {"l2", "standard"}
    losses = head.losses_[head.scale_]
    assert np.nanmin(losses) == min(np.nanmin(one) for one in head.losses_.values())
    assert head.Cs_[np.nanargmin(losses)] == head.C_
    tried = np.flatnonzero(np.isfinite(losses))
    assert tried[-1] < len(head.Cs_) - 1
    assert losses[tried[-1]] > np.nanmin(losses)


def test_losses_along_the_path_are_those_of_held_out_rows():
    X, y = photos(90, 12)
    _, rows = Coordinates.of(X, "none", None)
    folds = draw_folds(y, None, 3, np.random.RandomState(0))
    scored = scored_rows(y, np.ones(len(y)), folds)
    problem = Problem(rows, y, (folds[:, None] != np.arange(3)).astype(float))
    found = losses_along([0.01, 0.1], problem, scored, y, 500)
    for C, loss in zip([0.01, 0.1], found, strict=True):
        expected = 0.0
        for fold in range(3):
            held = folds == fold
            one = LogisticRegression(C=C, tol=1e-8).fit(rows[~held], y[~held])
            expected += log_loss(y[held], one.predict_proba(rows[held])) * held.mean()
        assert loss == pytest.approx(expected, abs=2e-3)


def test_a_chosen_c_beats_a_fixed_one_on_new_rows():
    X, y = photos(500, 120, noise=4)
    chosen, fixed = (LogisticHead(C=C, random_state=0).fit(X[:100], y[:100]) for C in ("auto", 10.0))
    losses = [log_loss(y[100:], head.predict_proba(X[100:])) for head in (chosen, fixed)]
    assert losses[0] < 0.8 * losses[1]


def test_groups_are_not_divided_between_folds():
    labels = np.repeat([0, 1], 30)
    groups = np.arange(60) // 5
    folds = draw_folds(labels, groups, 3, np.random.RandomState(0))
    assert all(len(np.unique(folds[groups == group])) == 1 for group in range(12))
    assert sorted(np.unique(folds)) == [0, 1, 2]


def test_views_as_groups_lead_to_a_stronger_penalty_than_views_as_photos():
    rng = np.random.default_rng(1)
    photo, y = photos(40, 60, noise=6)
    X = (photo.repeat(6, axis=0) + 0.05 * rng.normal(size=(240, 60))).astype(np.float32)
    labels, groups = y.repeat(6), np.arange(240) // 6
    grouped = LogisticHead(random_state=0).fit(X, labels, groups=groups)
    alone = LogisticHead(random_state=0).fit(X, labels)
    assert grouped.C_ < alone.C_


def test_clones_of_folds_keep_views_together_and_do_not_see_their_fold():
    X, y = photos(60)
    X, y, folds = X.repeat(2, axis=0), y.repeat(2), (np.arange(60) % 3).repeat(2)
    fitted = LogisticHead(random_state=0).fit_folds(X, y, folds, views=2)
    alone = LogisticHead(random_state=0).fit(X[folds != 1], y[folds != 1], groups=np.arange(40).repeat(2))
    assert len(fitted) == 3
    np.testing.assert_allclose(fitted[1].coef_, alone.coef_, atol=1e-9)


# ---- few photos ------------------------------------------------------------------------------------------


def test_a_class_of_one_photo_has_no_part_in_the_choice_and_this_is_said():
    X, y = photos(41)
    y[40] = 7
    with pytest.warns(UserWarning, match=r"too few photos in 1 of 3 classes \(7\): C was chosen without"):
        head = LogisticHead(random_state=0).fit(X, y)
    assert head.classes_.tolist() == [0, 1, 7]
    assert head.predict_proba(X)[40, 2] == head.predict_proba(X)[:, 2].max()


def test_where_nothing_can_be_held_out_c_falls_back():
    X, y = photos(2)
    with pytest.warns(UserWarning, match=r"could not be chosen by cross-validation and is 0\.01"):
        head = LogisticHead().fit(X, y)
    assert (head.C_, head.scale_, head.losses_) == (FALLBACK_C, "l2", {})
    assert head.predict(X).tolist() == [0, 1]


@pytest.mark.parametrize("rows", [4, 5, 7])
def test_two_or_three_photos_of_each_class_are_enough(rows):
    X, y = photos(rows, noise=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = LogisticHead(random_state=0).fit(X, y)
    assert head.losses_
    assert np.isfinite(head.predict_proba(X)).all()


def test_rows_that_are_all_alike_give_finite_numbers():
    X, y = np.ones((20, 5), np.float32), np.arange(20) % 2
    for scale in ("auto", "standard", "none"):
        assert LogisticHead(scale=scale).fit(X, y).predict_proba(X) == pytest.approx(0.5, abs=1e-3)


def test_zero_rows_stay_zero():
    assert unit_rows(np.zeros((1, 3), np.float16)).tolist() == [[0, 0, 0]]
    assert unit_rows(np.array([[3, 4]], np.float16)) == pytest.approx(np.array([[0.6, 0.8]]))


# ---- as every head ---------------------------------------------------------------------------------------


def test_principal_components_are_of_the_scaled_features():
    X, y = photos(200, 30)
    head = LogisticHead(C=1.0, scale="standard", pca=5).fit(X, y)
    rows = scaled(X, "standard")
    axes = np.linalg.svd(rows, full_matrices=False)[2][:5]
    theirs = LogisticRegression(C=1.0, tol=1e-8).fit(rows @ axes.T, y)
    np.testing.assert_allclose(head.predict_proba(X), theirs.predict_proba(rows @ axes.T), atol=2e-3)
    with pytest.raises(TrainingError, match="pca = 31, but the features have 30 components"):
        LogisticHead(pca=31).fit(X, y)


def test_it_says_when_it_does_not_converge():
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 steps"):
        LogisticHead(C=100.0, max_iter=1).fit(*photos())


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("scale", ["l2", "none"])
def test_it_becomes_numpy_alone_and_a_file_and_a_network(tmp_path, classes, scale):
    X, y = photos(60, 24, classes)
    X = X.reshape(60, 2, 3, 4)
    head = LogisticHead(scale=scale, pooling="avg", random_state=0).fit(X, y)
    expected = head.predict_proba(X)
    path = tmp_path / save_head(head, tmp_path)
    assert path.name == "head.skops"
    np.testing.assert_array_equal(load_head(path).predict_proba(X), expected)
    for form in (linear_form(head), load_linear(path)):
        assert form.unit_rows is (scale == "l2")
        np.testing.assert_allclose(form.predict_proba(X), expected, atol=1e-6)
    network = probabilities_network(head, (2, 3, 4))
    np.testing.assert_allclose(np.asarray(network(X, training=False)), expected, atol=1e-4)


def test_it_predicts_without_scikit_learn(tmp_path):
    X, y = photos(60)
    path = tmp_path / save_head(LogisticHead(scale="l2", C=1.0).fit(X, y), tmp_path)
    program = (
        "import sys, pathlib\n"
        "from featcache.heads.linear import load_linear\n"
        f"load_linear(pathlib.Path({str(path)!r})).predict_proba([[1.0] * 40])\n"
        "print({'sklearn', 'scipy', 'skops', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("classes", [2, 3])
def test_it_can_be_calibrated(classes):
    X, y = photos(300, classes=classes, noise=3)
    head = LogisticHead(C=100.0).fit(X[:100], y[:100])
    again = calibrated(head, X[100:], y[100:])
    assert log_loss(y[100:], again.predict_proba(X[100:])) < log_loss(y[100:], head.predict_proba(X[100:]))
    np.testing.assert_allclose(linear_form(again).predict_proba(X), again.predict_proba(X), atol=1e-5)


def test_it_can_be_cloned_and_cross_validated():
    X, y = photos(noise=0)
    head = clone(LogisticHead(random_state=0))
    assert cross_val_score(head, X, np.array(["cat", "dog"])[y], cv=3).mean() > 0.9


def test_features_of_another_shape_and_nan_are_refused():
    X, y = photos()
    head = LogisticHead(C=1.0).fit(X.reshape(-1, 2, 2, 10), y)
    with pytest.raises(ValueError, match=r"fitted on \(2, 2, 10\)"):
        head.predict(X.reshape(-1, 1, 4, 10))
    with pytest.raises(ValueError, match="NaN"):
        LogisticHead().fit(np.where(X[3, 3] == X, np.nan, X), y)
    with pytest.raises(ValueError, match="one class, 0"):
        LogisticHead().fit(X, y * 0)


def test_a_recipe_says_what_it_scales():
    built = build_head(HeadSettings(type="logistic", scale=True, pca=3, pooling="max", C=0.5), 3)
    assert (built.scale, built.pca, built.pooling, built.C, built.random_state) == (
        "standard",
        3,
        "max",
        0.5,
        3,
    )
