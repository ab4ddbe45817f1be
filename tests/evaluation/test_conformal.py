"""Conformal sets hold the true class as often as asked for."""

import numpy as np
import pytest

from featcache.evaluation.conformal import ConformalSets


def draw(rng, count, classes=4, sharpness=2.0):
    """Return probabilities and labels drawn by them."""
    logits = rng.normal(0, sharpness, (count, classes))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((count, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return shares, labels


@pytest.mark.parametrize("level", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("sharpness", [0.5, 2.0, 30.0])
def test_the_true_class_is_in_the_set_as_often_as_asked_for(level, sharpness):
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        conformal = ConformalSets.of(*draw(rng, 300, sharpness=sharpness))
        shares, labels = draw(rng, 1000, sharpness=sharpness)
        found.append(conformal.sets(shares, level)[np.arange(1000), labels].mean())
    # certain heads have ties, with which the sets hold it more often
    assert np.mean(found) > 1 - level - 0.01
    if sharpness < 30:
        assert np.mean(found) < 1 - level + 0.02


def test_probabilities_that_round_to_one_are_not_outside_the_threshold():
    conformal = ConformalSets.of(np.tile(np.float32([1.0, 0.0]), (50, 1)), np.zeros(50, int))
    nearly = np.array([[1 - 1e-12, 1e-12]])
    assert conformal.sets(nearly, 0.1).tolist() == [[True, False]]


def test_a_level_below_the_smallest_leaves_no_class_out():
    conformal = ConformalSets.of(np.full((9, 3), 1 / 3), np.zeros(9, int))
    assert conformal.smallest == 0.1
    assert conformal.sets(np.array([[1.0, 0.0, 0.0]]), 0.05).all()


@pytest.mark.parametrize(
    "scores",
    [
        np.zeros(0, np.float32),
        np.zeros((2, 2), np.float32),
        np.zeros(3),
        np.float32([0.2, 0.1]),
        np.float32([0.2, np.nan]),
        np.float32([0.2, 1.5]),
    ],
)
def test_scores_that_cannot_be_are_refused(scores):
    with pytest.raises(ValueError, match="scores"):
        ConformalSets.from_scores(scores)
