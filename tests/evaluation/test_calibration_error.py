"""The calibration error is the distance of confidence from accuracy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.evaluation import expected_calibration_error


def two_classes(confidence, right):
    """Labels and probabilities of rows that are predicted to be of class 0."""
    confidence = np.array(confidence)
    return np.where(right, 0, 1), np.stack([confidence, 1 - confidence], axis=1)


def by_definition(y, probabilities, bins):
    """The formula of the paper, bin by bin."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    error = 0.0
    for m in range(bins):
        own = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if own.any():
            error += own.sum() / len(y) * abs(right[own].mean() - confidence[own].mean())
    return error


def test_a_worked_example():
    y, probabilities = two_classes([0.9] * 10 + [0.6] * 10, [True] * 7 + [False] * 3 + [True] * 9 + [False])
    assert expected_calibration_error(y, probabilities, [0, 1]) == pytest.approx((0.2 + 0.3) / 2)


def test_errors_of_one_bin_cancel_and_those_of_two_do_not():
    y, probabilities = two_classes([0.9] * 10 + [0.6] * 10, [True] * 6 + [False] * 4 + [True] * 9 + [False])
    assert expected_calibration_error(y, probabilities, [0, 1], bins=1) == pytest.approx(0)
    assert expected_calibration_error(y, probabilities, [0, 1]) == pytest.approx(0.3)


def test_sure_and_right_is_0_and_sure_and_wrong_is_1():
    probabilities = np.eye(3)
    assert expected_calibration_error(["a", "b", "c"], probabilities, ["a", "b", "c"]) == 0
    assert expected_calibration_error(["b", "c", "a"], probabilities, ["a", "b", "c"]) == 1


@given(st.integers(1, 80), st.integers(2, 5), st.integers(1, 20), st.integers(0, 10**6))
def test_it_is_the_formula_of_the_paper(n, classes, bins, seed):
    rng = np.random.default_rng(seed)
    y, probabilities = rng.integers(classes, size=n), rng.dirichlet(np.ones(classes), n)
    found = expected_calibration_error(y, probabilities, range(classes), bins)
    assert found == pytest.approx(by_definition(y, probabilities, bins))
    assert 0 <= found <= 1


@pytest.mark.parametrize(
    ("y", "probabilities", "bins", "message"),
    [
        ([], np.empty((0, 2)), 15, "no rows"),
        ([0, 5], np.full((2, 2), 0.5), 15, r"\[5\]"),
        ([0, 1], np.full((2, 3), 1 / 3), 15, "shape"),
        ([0, 1], np.full((2, 2), np.nan), 15, "between 0 and 1"),
        ([0, 1], np.full((2, 2), 0.5), 0, "bins"),
    ],
)
def test_impossible_arguments_are_refused(y, probabilities, bins, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(y, probabilities, [0, 1], bins)


def test_a_weight_counts_as_so_many_rows():
    rng = np.random.default_rng(0)
    y, probabilities, times = rng.integers(3, size=40), rng.dirichlet(np.ones(3), 40), rng.integers(0, 4, 40)
    weighted = expected_calibration_error(y, probabilities, range(3), weights=times)
    repeated = expected_calibration_error(np.repeat(y, times), np.repeat(probabilities, times, 0), range(3))
    assert weighted == pytest.approx(repeated)
