"""Errors of a classifier become a user's error, errors of this package do not."""

import warnings

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from featcache.errors import ClassifierError, TrainingError
from featcache.evaluation.calls import call, collected_warnings
from featcache.evaluation.scoring import predictions_of
from featcache.evaluation.wilson import wilson_interval

X, Y = np.arange(12.0).reshape(6, 2), np.array([0, 1] * 3)


def test_the_classifiers_error_keeps_its_first_line():
    head = KNeighborsClassifier(100).fit(X, Y)
    with pytest.raises(ClassifierError, match=r"^Expected n_neighbors <= n_samples_fit.*$") as caught:
        call(head.predict, X)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TrainingError)


def test_an_error_in_code_of_this_package_passes_through():
    with pytest.raises(TypeError):
        call(predictions_of, GaussianNB().fit(X, Y), X)  # an argument is missing
    with pytest.raises(ValueError, match="successes = 5") as caught:
        call(wilson_interval, 5, 3)
    assert not isinstance(caught.value, ClassifierError)


def test_other_errors_pass_through():
    def fails():
        raise KeyError("key")

    with pytest.raises(KeyError):
        call(fails)


def test_probabilities_that_are_none_are_the_classifiers_error():
    class Broken(GaussianNB):
        def predict_proba(self, X):
            return np.full((len(X), 2), np.nan)

    with pytest.raises(ClassifierError, match="probabilities must be between 0 and 1"):
        predictions_of(Broken().fit(X, Y), X, Y)


def test_warnings_are_collected_once_by_their_first_line():
    with collected_warnings() as lines:
        for text in ("one\nmore", "one\nother", "two", ""):
            warnings.warn(text, stacklevel=1)
    assert lines == ["one", "two"]
