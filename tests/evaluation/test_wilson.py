"""A share's interval is the published one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.evaluation import wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe, Two-sided confidence intervals for the single proportion, Stat. Med. 17 (1998), table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.data(), st.integers(1, 10**6), st.floats(0.5, 0.999))
def test_wilson_holds_the_share_and_stays_in_range(data, n, confidence):
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n, confidence)
    assert 0.0 <= low <= successes / n <= high <= 1.0
    assert low < high


@given(st.integers(1, 1000))
def test_wilson_narrows_with_more_rows(n):
    low, high = wilson_interval(n, 2 * n)
    more_low, more_high = wilson_interval(10 * n, 20 * n)
    assert more_high - more_low < high - low


def test_nothing_tried_tells_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("successes", "n", "confidence"), [(-1, 5, 0.9), (6, 5, 0.9), (1, 5, 1.0), (1, 5, 0.0)]
)
def test_impossible_counts_are_refused(successes, n, confidence):
    with pytest.raises(ValueError, match=r"successes|confidence"):
        wilson_interval(successes, n, confidence)


def test_counts_need_not_be_whole():
    low, high = wilson_interval(2.5, 5.5)
    assert wilson_interval(2, 5)[0] < low < 2.5 / 5.5 < high < wilson_interval(3, 5)[1]
