"""The baselines are what their names say, with probabilities that can be believed."""

import numpy as np
import pytest
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from featcache.heads.baselines import NearestCentroidHead, NearestNeighborsHead
from featcache.heads.linear import load_linear
from featcache.heads.persistence import load_head, save_head
from featcache.heads.vectors import unit_rows

HEADS = [NearestCentroidHead, NearestNeighborsHead]


def photos(n=200, d=300, classes=3, seed=0, shift=0.25):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = np.random.default_rng(7).normal(size=(classes, d)) * shift
    return (rng.normal(size=(n, d)) + centres[labels] + 1).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_nearest_centroid_is_that_of_scikit_learn(classes):
    X, y = photos(classes=classes)
    theirs = NearestCentroid().fit(unit_rows(X), y)
    ours = NearestCentroidHead().fit(X, y)
    np.testing.assert_allclose(ours.centroids_, theirs.centroids_, atol=1e-6)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(unit_rows(X)))


def test_nearest_neighbors_are_those_of_scikit_learn():
    X, y = photos()
    theirs = KNeighborsClassifier(7, metric="cosine").fit(X[:150], y[:150])
    ours = NearestNeighborsHead(n_neighbors=7).fit(X[:150], y[:150])
    votes = theirs.predict_proba(X[150:]) * 7
    np.testing.assert_allclose(ours.predict_proba(X[150:]), (votes + 1 / 3) / 8, atol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
def test_probabilities_are_about_as_right_as_they_say(kind):
    """With features that repeat each other, those of scikit-learn are sure and wrong."""
    X, y = photos(800, d=30)
    X = X.repeat(10, axis=1)
    head = kind().fit(X[:200], y[:200])
    found = log_loss(y[200:], head.predict_proba(X[200:]))
    theirs = NearestCentroid().fit(X[:200], y[:200])
    assert found < np.log(3)
    assert found < 0.9 * log_loss(y[200:], theirs.predict_proba(X[200:]))
    assert head.score(X[200:], y[200:]) > 0.5


@pytest.mark.parametrize("kind", HEADS)
def test_classes_far_apart_do_not_make_probabilities_of_0_and_1(kind):
    X, y = photos(30, classes=2, shift=5)
    shares = kind().fit(X, y).predict_proba(X)
    assert 0.001 < shares.min() < 0.2


@pytest.mark.parametrize("kind", HEADS)
def test_copies_of_a_photo_do_not_vouch_for_each_other(kind):
    """Noise in three equal copies: alone a copy finds the two others, in a group it finds none."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 200)).astype(np.float32).repeat(3, axis=0)
    y, groups = rng.integers(0, 2, 40).repeat(3), np.arange(40).repeat(3)
    new, labels = rng.normal(size=(300, 200)), np.arange(300) % 2
    grouped, alone = kind().fit(X, y, groups=groups), kind().fit(X, y)
    losses = [log_loss(labels, one.predict_proba(new)) for one in (grouped, alone)]
    assert losses[0] < losses[1]
    assert losses[0] < 0.8


@pytest.mark.parametrize("kind", HEADS)
def test_weights_count_as_repeated_rows_and_zero_as_none(kind):
    X, y = photos(60)
    weights = np.where(np.arange(60) < 30, 0.0, 1.0)
    settings = {} if kind is NearestCentroidHead else {"n_neighbors": 1}
    weighted = kind(**settings).fit(X, y, weights)
    if kind is NearestCentroidHead:
        alone = kind().fit(X[30:], y[30:])
        np.testing.assert_allclose(weighted.centroids_, alone.centroids_, atol=1e-9)
        assert weighted.sharpness_ == pytest.approx(alone.sharpness_, rel=1e-3)
    else:
        # a neighbor of weight 0 has no vote: the classes are equally probable
        assert weighted.predict_proba(X[:30]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", HEADS)
def test_one_photo_of_each_class_is_enough(kind):
    X, y = photos(2, classes=2)
    head = kind().fit(X, y)
    assert head.predict(X).tolist() == [0, 1]
    assert np.isfinite(head.predict_proba(X)).all()


@pytest.mark.parametrize("kind", HEADS)
def test_they_come_back_from_their_files(kind, tmp_path):
    X, y = photos(60)
    X = X.reshape(60, 5, 5, 12)
    head = kind(pooling="avg").fit(X, np.array(["a", "b", "c"])[y])
    path = tmp_path / save_head(head, tmp_path)
    np.testing.assert_array_equal(load_head(path).predict_proba(X), head.predict_proba(X))
    linear = load_linear(path)
    if kind is NearestCentroidHead:
        np.testing.assert_allclose(linear.predict_proba(X), head.predict_proba(X), atol=1e-6)
    else:
        assert linear is None
        assert path.stat().st_size < 60 * 12 * 2 + 20_000
