"""Intervals of shares: Wilson's for plain rows, the bootstrap's for weighted and grouped ones."""

import numpy as np
import pytest

from featcache.evaluation.predictions import Predictions
from featcache.evaluation.shares import share_intervals
from featcache.evaluation.wilson import wilson_interval


def given(right, weights=None, groups=None):
    true = np.zeros(len(right), int)
    return Predictions.of(true, None, 1 - np.asarray(right, int), [0, 1], weights=weights, groups=groups)


def interval(right, **columns):
    one = given(right, **columns)
    (found,) = share_intervals(one, np.ones((1, len(one)), bool))
    return found


def test_plain_rows_have_the_interval_of_wilson():
    assert interval([1] * 7 + [0] * 3) == wilson_interval(7, 10)
    rows = np.array([[True] * 10, [True] * 4 + [False] * 6])
    assert share_intervals(given([1] * 3 + [0] * 7), rows) == [wilson_interval(3, 10), wilson_interval(3, 4)]


def test_groups_that_are_right_or_wrong_as_wholes_count_as_one_row_each():
    """100 groups of 9 rows, 80 of them right: the interval has the width for 100 rows, not for 900."""
    right = np.repeat([1] * 80 + [0] * 20, 9)
    low, high = interval(right, groups=np.repeat(np.arange(100), 9))
    assert high - low == pytest.approx(np.diff(wilson_interval(80, 100))[0], rel=0.15)
    assert low < 0.8 < high
    plain = interval(right)
    assert plain[1] - plain[0] < 0.5 * (high - low)


def test_weights_widen_the_interval():
    right = np.arange(200) % 2
    plain, heavy = interval(right), interval(right, weights=np.where(np.arange(200) < 20, 100.0, 1.0))
    assert heavy[1] - heavy[0] > 2 * (plain[1] - plain[0])


def test_where_resampling_changes_nothing_a_group_is_one_row():
    groups = np.repeat(np.arange(5), 8)
    assert interval([1] * 40, groups=groups) == pytest.approx(wilson_interval(5, 5))
    assert interval([0] * 40, groups=groups) == pytest.approx(wilson_interval(0, 5))
    # one group with half of its rows right
    assert interval([1, 0] * 4, groups=[0] * 8) == pytest.approx(wilson_interval(0.5, 1))
    # one row that weighs as much as all others: two rows at most
    low, high = interval([1] * 5, weights=[4.0, 1, 1, 1, 1])
    assert (low, high) == pytest.approx(wilson_interval(64 / 20, 64 / 20))
