"""What a fit takes is found by its signature."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from featcache.evaluation.fitting import fit_arguments, takes_weights
from featcache.heads.dense.head import DenseHead
from featcache.heads.estimators import build_head
from featcache.recipe import HeadSettings

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype(np.float32)
Y = (X[:, 0] + RNG.normal(size=60) > 0).astype(int)
TIMES = RNG.integers(0, 4, size=60)


class Grouped(LogisticRegression):
    """Takes groups, as classifiers that cross-validate do."""

    def fit(self, X, y, sample_weight=None, groups=None):
        return super().fit(X, y, sample_weight)


def test_what_is_not_given_or_not_taken_is_not_passed_on():
    assert fit_arguments(LogisticRegression(), None, TIMES) == {}
    assert fit_arguments(KNeighborsClassifier(), TIMES, TIMES) == {}
    assert fit_arguments(LogisticRegression(), TIMES, TIMES).keys() == {"sample_weight"}
    assert fit_arguments(DenseHead(), TIMES, TIMES).keys() == {"sample_weight", "groups"}
    assert fit_arguments(Grouped(), None, TIMES).keys() == {"groups"}


@pytest.mark.parametrize(
    ("kind", "takes"),
    [("dense", True), ("LogisticRegression", True), ("SVC", True), ("KNeighborsClassifier", False)],
)
def test_heads_say_whether_they_take_weights(kind, takes):
    assert takes_weights(build_head(HeadSettings(type=kind), 0)) is takes


def test_a_weight_counts_as_so_many_rows_in_all_steps_of_a_pipeline():
    head = build_head(HeadSettings(type="LogisticRegression", tol=1e-8), 0)
    arguments = fit_arguments(head, TIMES.astype(float))
    assert arguments.keys() == {"scale__sample_weight", "classifier__sample_weight"}
    weighted = head.fit(X, Y, **arguments).predict_proba(X)
    repeated = head.fit(np.repeat(X, TIMES, 0), np.repeat(Y, TIMES)).predict_proba(X)
    np.testing.assert_allclose(weighted, repeated, atol=1e-4)
