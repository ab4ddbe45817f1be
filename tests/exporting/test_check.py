"""When an exported model counts as the same."""

import numpy as np
import pytest

from featcache.exporting.check import UNKNOWN, Predictions, compare, compare_novelty


def of(*second):
    """Return probabilities of two classes."""
    return np.array([[1 - p, p] for p in second], np.float32)


def compared(original, exported, truth=None, required=0.99):
    labels = original.argmax(axis=1)
    truth = np.full(len(labels), UNKNOWN) if truth is None else np.array(truth)
    return compare(Predictions(original, labels), exported, truth, required)


def test_it_finds_the_largest_difference_and_the_share_of_equal_labels():
    found = compared(of(0.1, 0.4, 0.9, 0.8), of(0.1, 0.6, 0.9, 0.75), truth=[0, 0, 1, 1])
    assert found.largest_difference == pytest.approx(0.2, abs=1e-6)
    assert (found.photos, found.equal_labels) == (4, 0.75)
    assert (found.labelled, found.accuracy, found.exported_accuracy) == (4, 1.0, 0.75)
    assert not found.passed


def test_the_limit_itself_is_enough():
    original = of(*[0.9] * 100)
    one_off = of(*[0.9] * 99, 0.1)
    assert compared(original, one_off).passed
    assert not compared(original, of(*[0.9] * 98, 0.1, 0.1)).passed
    assert compared(original, of(*[0.9] * 98, 0.1, 0.1), required=0.95).passed


def test_accuracy_counts_only_photos_whose_class_is_known():
    found = compared(of(0.1, 0.9, 0.9), of(0.1, 0.9, 0.9), truth=[0, UNKNOWN, 0])
    assert (found.labelled, found.accuracy) == (2, 0.5)
    assert compared(of(0.1), of(0.1)).accuracy is None


def test_numbers_that_are_not_finite_equal_nothing():
    broken = np.full((3, 2), np.nan, np.float32)
    found = compared(of(0.1, 0.1, 0.1), broken)
    assert found.equal_labels == 0
    assert not found.passed


def test_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match=r"gives \(2, 1\) numbers"):
        compared(of(0.1, 0.2), np.zeros((2, 1)))


def test_novelty_is_compared_by_what_is_rejected():
    found = compare_novelty(np.array([0.01, 0.5, 0.9, 0.2]), np.array([0.02, 0.01, np.nan, 0.2]))
    assert found.equally_rejected == 0.5
    assert not found.passed
    assert compare_novelty(np.array([0.5]), np.array([0.6])).passed
    assert compare_novelty(None, np.array([0.6])) is None
    with pytest.raises(ValueError, match="numbers of novelty"):
        compare_novelty(np.zeros(2), np.zeros((2, 1)))
