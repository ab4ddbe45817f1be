"""Bins of confidence hold every row once and agree with the expected calibration error."""

import numpy as np
import pytest

from featcache.evaluation import expected_calibration_error, wilson_interval
from featcache.evaluation.reliability import reliability


def test_bins_agree_with_the_expected_calibration_error():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 500).astype(np.float32)
    y = rng.integers(3, size=500)
    bins = reliability(y, probabilities, [0, 1, 2])
    error = sum(one["n"] * abs(one["accuracy"] - one["confidence"]) for one in bins) / 500
    assert sum(one["n"] for one in bins) == 500
    assert error == pytest.approx(expected_calibration_error(y, probabilities, [0, 1, 2]), abs=1e-6)
    assert all(one["low"] - 1e-6 <= one["confidence"] <= one["high"] + 1e-6 for one in bins)


def test_a_bin_says_how_many_are_right_with_the_interval_of_its_count():
    probabilities = np.array([[0.9, 0.1]] * 8 + [[0.4, 0.6]] * 2)
    bins = reliability([0] * 6 + [1] * 4, probabilities, [0, 1], bins=5)
    assert [(one["n"], one["accuracy"], one["low"]) for one in bins] == [(2, 1.0, 0.4), (8, 0.75, 0.8)]
    assert (bins[1]["accuracy_low"], bins[1]["accuracy_high"]) == wilson_interval(6, 8)
