"""Dense heads stop early by themselves, and a head for all photos takes as long as those of the folds."""

import warnings

import numpy as np
import pytest

from featcache.heads.dense.head import DenseHead
from featcache.heads.dense.refit import refit_after_folds
from featcache.heads.dense.stack import epochs_of_others, fit_folds, fit_together


def photos(n, classes=2, seed=0, noise=2.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    X = rng.normal(size=(n, 30)) * noise
    X[:, :classes] += 2 * np.eye(classes)[labels]
    return X.astype(np.float32), labels


def test_it_is_the_default_and_keeps_the_best_epoch():
    X, y = photos(200)
    head = DenseHead((64,), learning_rate=0.05, epochs=60, random_state=0)
    head.fit(X, y, validation_data=photos(200, seed=1))
    losses = head.history_["val_loss"]
    assert head.n_iter_ < 60
    assert head.best_epoch_ == int(np.argmin(losses)) + 1 == head.n_iter_ - head.patience


def test_without_validation_data_some_of_every_class_are_held_out():
    X, y = photos(60)
    y[:3] = 5  # a class of three photos
    y[3] = 6  # and one of a single photo, which is trained on
    head = DenseHead(epochs=2, validation_fraction=0.1, random_state=0).fit(X, y)
    assert "val_loss" in head.history_
    assert head.classes_.tolist() == [0, 1, 5, 6]


@pytest.mark.parametrize("rows", [4, 29])
def test_few_photos_are_all_trained_on_for_all_epochs_and_this_is_said(rows):
    X, y = photos(rows)
    with pytest.warns(
        UserWarning, match=f"of {rows} photos, which are too few, none are held out: all 7 epochs"
    ):
        head = DenseHead(epochs=7, learning_rate=0.5, patience=1, random_state=0).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = DenseHead(epochs=7, learning_rate=0.5, early_stopping=False, random_state=0).fit(X, y)
    assert head.n_iter_ == 7
    np.testing.assert_array_equal(head.coefs_[0], same.coefs_[0])


def test_members_of_a_stack_stop_each_on_its_own():
    X, y = photos(200)
    rates = (0.3, 0.01, 1e-5)
    heads = [DenseHead(learning_rate=rate, epochs=30, patience=2, random_state=0) for rate in rates]
    fit_together(heads, X, y, photos(200, seed=1))
    assert heads[0].n_iter_ < heads[1].n_iter_ <= heads[2].n_iter_ == 30
    for head in heads:
        assert head.best_epoch_ == int(np.argmin(head.history_["val_loss"])) + 1


def test_the_head_of_all_photos_trains_the_median_of_the_folds_epochs():
    X, y = photos(150)
    head = DenseHead((32,), learning_rate=0.05, epochs=40, random_state=0)
    (fitted,) = fit_folds([head], X, y, np.arange(150) % 5)
    again = refit_after_folds(head, fitted)
    assert again.epochs == int(np.median([one.n_iter_ for one in fitted])) < 40
    assert again.early_stopping is False
    assert again.fit(X, y).n_iter_ == again.epochs
    assert (head.epochs, head.early_stopping) == (40, True)
    fixed = DenseHead(epochs=3, early_stopping=False)
    assert refit_after_folds(fixed, fitted).get_params() == fixed.get_params()


def test_the_epoch_of_a_fold_is_that_of_the_others_and_not_the_luckiest_on_it():
    X, y = photos(150, noise=4.0)
    kind = {"units": (32,), "learning_rate": 0.05, "epochs": 40, "random_state": 0}
    folds = np.arange(150) % 5
    (fitted,) = fit_folds([DenseHead(**kind)], X, y, folds)
    (whole,) = fit_folds([DenseHead(**kind, early_stopping=False)], X, y, folds)
    losses = np.array([one.history_["val_loss"] for one in whole])
    taken = [losses[fold, one.n_iter_ - 1] for fold, one in enumerate(fitted)]
    np.testing.assert_allclose([one.history_["val_loss"][-1] for one in fitted], taken, atol=1e-5)
    assert np.mean(taken) > losses.min(axis=1).mean()
    assert all(one.n_iter_ < 40 for one in fitted)


def test_each_fold_takes_the_median_of_the_others():
    assert epochs_of_others([1, 5, 9]) == [9, 9, 5]
    assert epochs_of_others([2, 4, 6, 8, 100]) == [8, 8, 8, 6, 6]
