"""A learning curve trains on nested parts of whole groups and scores them on the same photos."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from featcache.errors import TrainingError
from featcache.evaluation import learning_curve as module
from featcache.evaluation.learning_curve import Scored, learning_curve


def photos(n, seed=0, width=20, noise=3.0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    X = (rng.normal(0, noise, (n, width)) + y[:, None]).astype(np.float32)
    return Scored(X, y.astype(np.int64), np.arange(n))


def logistic():
    return LogisticRegression(C=0.1)


class Recorder(LogisticRegression):
    """Keeps the first feature of every row that it was fitted on."""

    seen: list = []  # noqa: RUF012

    def fit(self, X, y):
        self.seen.append((np.sort(X[:, 0]), np.bincount(y)))
        return super().fit(X, y)


def test_more_photos_give_better_scores_on_validation():
    curve = learning_curve(logistic, photos(400), photos(300, seed=1))
    assert curve.photos.tolist() == [50, 100, 200, 400]
    assert curve.accuracy[-1] > curve.accuracy[0]
    assert curve.log_loss[-1] < curve.log_loss[0]
    assert (curve.n, curve.draws, curve.in_folds) == (300, 5, False)
    assert curve.error_forecast.is_trend
    assert curve.error_forecast.photos == 800
    assert curve.to_json()["forecast"]["error"]["is_trend"] is True


def test_the_largest_size_is_the_score_of_the_head_trained_on_all():
    train, validation = photos(200), photos(150, seed=1)
    curve = learning_curve(logistic, train, validation)
    head = logistic().fit(train.X, train.y)
    assert curve.accuracy[-1] == pytest.approx(head.score(validation.X, validation.y))


def test_in_folds_every_photo_is_scored_once_and_not_trained_on():
    train, folds = photos(100), np.arange(100) // 2 % 5
    curve = learning_curve(logistic, train, folds=folds)
    expected = np.empty(100)
    for fold in range(5):
        out = folds == fold
        head = logistic().fit(train.X[~out], train.y[~out])
        expected[out] = head.predict(train.X[out]) == train.y[out]
    assert curve.photos[-1] == 80
    assert (curve.n, curve.draws, curve.in_folds) == (100, 5, True)
    assert curve.accuracy[-1] == pytest.approx(expected.mean())


def test_parts_of_a_draw_are_nested_and_hold_the_same_share_of_each_class():
    Recorder.seen = []
    learning_curve(Recorder, photos(80), photos(20, seed=1), draws=2)
    seen = Recorder.seen
    expected = [[5, 5]] * 2 + [[10, 10]] * 2 + [[20, 20]] * 2 + [[40, 40]]
    assert [counts.tolist() for _, counts in seen] == expected
    by_size = {len(values): values for values, _ in seen[:1] + seen[6:]}
    assert set(by_size[10]) < set(by_size[80])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 4), st.integers(8, 60))
def test_no_group_is_divided_and_parts_grow(seed, classes, n):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    groups = rng.integers(0, 12, n) * classes + y
    train = Scored(np.zeros((n, 1), np.float32), y, groups)
    parts = module._nested_parts(train, np.arange(n), module.FRACTIONS, rng)
    for smaller, larger in pairwise(parts):
        assert set(smaller) <= set(larger)
    for part in parts:
        chosen = set(groups[part])
        assert chosen.isdisjoint(np.delete(groups, part))
        assert set(y[part]) == set(y)
    assert len(parts[-1]) == n


def test_views_of_a_photo_stay_together_and_only_plain_photos_are_scored():
    plain = photos(60)
    views = Scored(plain.X.repeat(3, axis=0), plain.y, plain.groups)
    Recorder.seen = []
    folds = np.arange(60) // 2 % 3
    curve = learning_curve(Recorder, views, folds=folds, views=3)
    assert {len(values) % 3 for values, _ in Recorder.seen} == {0}
    assert curve.n == 60
    expected = learning_curve(logistic, plain, folds=folds)
    assert curve.photos.tolist() == expected.photos.tolist()


def test_weights_are_used_in_training_and_in_scores():
    train, validation = photos(120), photos(100, seed=1)
    weights = np.random.default_rng(0).uniform(0.1, 5, 220)
    given = train._replace(weights=weights[:120]), validation._replace(weights=weights[120:])
    head = logistic().fit(train.X, train.y, sample_weight=weights[:120])
    right = head.predict(validation.X) == validation.y
    curve = learning_curve(logistic, *given)
    assert curve.accuracy[-1] == pytest.approx(np.average(right, weights=weights[120:]))
    assert curve.accuracy[-1] != learning_curve(logistic, train, validation).accuracy[-1]


def test_a_head_without_probabilities_has_no_log_loss():
    curve = learning_curve(LinearSVC, photos(100), photos(50, seed=1))
    assert curve.log_loss is None
    assert curve.log_loss_forecast is None
    assert curve.error_forecast is not None


class Needs40(LogisticRegression):
    def fit(self, X, y):
        if len(y) < 40:
            raise ValueError("40 rows are needed")
        return super().fit(X, y)


def test_sizes_at_which_the_head_cannot_be_trained_are_said():
    curve = learning_curve(Needs40, photos(100), photos(50, seed=1))
    assert [one.split(":")[0] for one in curve.skipped] == ["12% (14 photos)", "25% (26 photos)"]
    assert curve.error_forecast is None
    with pytest.raises(TrainingError, match=r"at any size; .*: 40 rows are needed"):
        learning_curve(Needs40, photos(30), photos(50, seed=1))


def test_of_few_photos_equal_sizes_are_trained_once():
    curve = learning_curve(logistic, photos(8), photos(20, seed=1))
    assert curve.photos.tolist() == [4, 8]
    assert curve.error_forecast is None
