"""Novelty: p-values that are right for known classes, small for others, and defined for any features."""

import numpy as np
import pytest

from featcache.evaluation.novelty import Novelty, unit_vectors

CHANNELS = 40
CENTRES = np.random.default_rng(0).normal(0, 1, (4, CHANNELS))
SPREAD = np.exp(np.linspace(0.5, -2, CHANNELS))  # few directions in which photos of a class differ much


def draw(rng, label, count):
    return (CENTRES[label] + rng.normal(0, 1, (count, CHANNELS)) * SPREAD).astype(np.float32)


def photos(rng, counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.concatenate([draw(rng, label, count) for label, count in enumerate(counts)]), labels


@pytest.mark.parametrize("counts", [(60, 60, 60), (300, 100, 40)])
def test_of_known_classes_as_many_are_rejected_as_was_asked_for(counts):
    shares = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        X, y = photos(rng, counts)
        unseen, _ = photos(rng, counts)
        shares.append((Novelty.fit(X, y, seed=seed).p_values(unseen) < 0.05).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.015)


def test_photos_of_another_class_are_far_whatever_the_length_of_their_features():
    rng = np.random.default_rng(1)
    novelty = Novelty.fit(*photos(rng, (80, 80, 80)))
    others, known = draw(rng, 3, 50), draw(rng, 0, 50)
    assert (novelty.p_values(others * 5) < 0.05).mean() > 0.9
    assert (novelty.p_values(known * 5) < 0.05).mean() < 0.2
    assert novelty.p_values(known * 5) == pytest.approx(novelty.p_values(known), abs=1e-3)


def test_the_distance_is_mahalanobis_with_the_shrunk_covariance():
    X, y = photos(np.random.default_rng(2), (90, 70))
    novelty = Novelty.fit(X, y)
    Z = unit_vectors(X).astype(float)
    means = np.stack([Z[y == label].mean(axis=0) for label in (0, 1)])
    deviations = Z - means[y]
    covariance = deviations.T @ deviations / len(Z)
    variances, axes = np.linalg.eigh(covariance)
    rank = len(novelty.factor)
    assert rank == min(64, (160 - 2) // 4)
    rest = variances[:-rank].mean()
    shrunk = axes[:, -rank:] * variances[-rank:] @ axes[:, -rank:].T + rest * (
        np.eye(CHANNELS) - axes[:, -rank:] @ axes[:, -rank:].T
    )
    differences = Z[:20, None] - means
    expected = np.einsum("nkd,de,nke->nk", differences, np.linalg.inv(shrunk), differences)
    assert novelty.distances(X[:20]) / rest == pytest.approx(expected, rel=0.02)


def test_photos_of_a_group_are_compared_with_others_only():
    """A photo that is compared with its own burst seems much nearer than a new one."""
    rng = np.random.default_rng(3)
    X, y = photos(rng, (30, 30))
    bursts = np.repeat(np.arange(60), 6)
    X, y = X[bursts] + rng.normal(0, 0.01, (360, CHANNELS)).astype(np.float32), y[bursts]
    unseen, _ = photos(rng, (300, 300))
    rejected = (Novelty.fit(X, y, bursts).p_values(unseen) < 0.05).mean()
    assert rejected == pytest.approx(0.05, abs=0.05)
    assert (Novelty.fit(X, y).p_values(unseen) < 0.05).mean() > 3 * rejected


def test_a_class_of_one_photo_is_known_and_compared_with_the_photos_of_all():
    rng = np.random.default_rng(4)
    X, y = photos(rng, (40, 40, 1))
    novelty = Novelty.fit(X, y)
    assert len(novelty.scores) == 80
    assert novelty.pooled_classes(0.05) == [2]
    assert novelty.p_values(X[-1:])[0] > 0.5
    assert novelty.pooled_classes(0.01) == [0, 1, 2]


def test_of_one_photo_of_each_class_nothing_can_be_learned():
    X, y = photos(np.random.default_rng(5), (1, 1, 1))
    with pytest.raises(ValueError, match="no class has two photos"):
        Novelty.fit(X, y)


def test_p_values_lie_between_one_in_n_plus_one_and_one():
    X, y = photos(np.random.default_rng(6), (25, 25))
    novelty = Novelty.fit(X, y)
    p = novelty.p_values(np.concatenate([X, -X]))
    assert p.min() >= novelty.smallest == 1 / 51
    assert p.max() < 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "X",
    [
        np.zeros((12, 5), np.float32),
        np.ones((12, 5), np.float32),
        np.ones((12, 1), np.float32),
        np.repeat(np.eye(2, 5, dtype=np.float32), 6, axis=0),
        np.random.default_rng(0).normal(size=(12, 3000)).astype(np.float32),
        np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32) * 1e30,
        np.random.default_rng(0).normal(size=(12, 5)).astype(np.float16) * 1e-4,
        np.random.default_rng(0).normal(size=(12, 2, 3, 5)).astype(np.float16),
    ],
    ids=["zeros", "constant", "one channel", "duplicates", "n < d", "large", "small", "spatial"],
)
def test_any_finite_features_give_p_values_without_warnings(X):
    novelty = Novelty.fit(X, np.repeat([0, 1], 6))
    p = novelty.p_values(X)
    assert p.shape == (12,)
    assert ((p > 0) & (p <= 1)).all()


def test_photos_like_the_known_ones_are_not_rejected_where_all_are_equal():
    X = np.ones((60, 5), np.float32)
    novelty = Novelty.fit(X, np.repeat([0, 1], 30))
    assert novelty.p_values(X[:1])[0] > 0.9
    assert novelty.p_values(np.eye(1, 5))[0] < 0.05


@pytest.mark.parametrize(
    "features", [np.full((1, CHANNELS), np.nan), np.zeros((1, 7)), np.zeros((1, 2, CHANNELS))]
)
def test_features_that_are_none_are_refused(features):
    novelty = Novelty.fit(*photos(np.random.default_rng(7), (10, 10)))
    with pytest.raises(ValueError, match=r"NaN|channels|shape"):
        novelty.distances(features)


def test_arrays_give_the_same_novelty_back():
    X, y = photos(np.random.default_rng(8), (20, 20))
    novelty = Novelty.fit(X, y)
    again = Novelty.from_arrays(novelty.to_arrays(), 2, CHANNELS)
    assert np.array_equal(again.p_values(X), novelty.p_values(X))


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.array([0, 7])},
        {"labels": np.array([1, 1])},
        {"nearest": np.full(40, -1)},
        {"scores": np.full(40, np.nan)},
        {"scores": np.zeros(3)},
        {"means": np.zeros((2, 3), np.float32)},
        {"factor": np.zeros((1, CHANNELS))},
        {"factor": np.full((1, CHANNELS), np.inf, np.float32)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change):
    arrays = Novelty.fit(*photos(np.random.default_rng(9), (20, 20))).to_arrays()
    with pytest.raises(ValueError, match=r"\w"):
        Novelty.from_arrays(arrays | change, 2, CHANNELS)
