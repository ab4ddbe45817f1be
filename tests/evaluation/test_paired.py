"""Two classifiers on the same rows are compared by SciPy's exact numbers."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.evaluation import mcnemar_exact, paired_test


def answers(both, only_a, only_b, neither):
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array(a, bool), np.array(b, bool)


@settings(deadline=None)  # SciPy's statistics are slow to import
@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60), st.integers(0, 50))
def test_it_is_the_two_sided_binomial_test_on_the_discordant_rows(both, only_a, only_b, neither):
    from scipy.stats import binomtest

    wanted = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    found = mcnemar_exact(*answers(both, only_a, only_b, neither))
    assert found == pytest.approx(wanted, rel=1e-9)
    assert found == mcnemar_exact(*answers(neither, only_b, only_a, both))


def test_only_the_discordant_rows_count():
    assert mcnemar_exact(*answers(1000, 0, 5, 3)) == 2 / 2**5
    assert mcnemar_exact(*answers(7, 0, 0, 3)) == 1.0
    assert mcnemar_exact([], []) == 1.0


def test_many_rows_are_no_trouble():
    assert 0 < mcnemar_exact(*answers(0, 3000, 3300, 0)) < 1e-3


@pytest.mark.parametrize(("a", "b"), [([1, 0], [1]), ([[1, 0]], [[1, 0]]), (True, True)])
def test_rows_that_do_not_go_together_are_refused(a, b):
    with pytest.raises(ValueError, match="one value per row"):
        mcnemar_exact(a, b)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_groups_of_one_row_give_mcnemars_test(both, only_a, only_b):
    a, b = answers(both, only_a, only_b, 1)
    wanted = mcnemar_exact(a, b)
    assert paired_test(a, b) == wanted
    assert paired_test(a, b, groups=np.arange(len(a))) == pytest.approx(wanted)
    # equal weights change nothing, but for the drawing
    assert paired_test(a, b, weights=np.full(len(a), 0.3)) == pytest.approx(wanted, abs=0.03)


def test_a_group_counts_once():
    """Twelve rows that one classifier alone gets right are much; if they are of two groups, they are not."""
    a, b = answers(20, 12, 0, 5)
    groups = np.concatenate([np.arange(20), np.repeat([20, 21], 6), np.arange(22, 27)])
    assert mcnemar_exact(a, b) < 0.001
    assert paired_test(a, b, groups=groups) == 0.5
    assert paired_test(a, b, np.ones(37), groups) == pytest.approx(0.5, abs=0.03)


def test_groups_of_many_sizes_have_the_share_of_all_signs():
    a = np.array([True] * 6 + [False] * 3)
    groups = [0, 0, 0, 1, 1, 2, 3, 3, 4]
    # differences 3, 2, 1, -2, -1: of 32 signs those whose sum is 3 or farther from 0
    sums = [
        sum(s * d for s, d in zip(signs, (3, 2, 1, 2, 1), strict=True))
        for signs in product((-1, 1), repeat=5)
    ]
    assert paired_test(a, ~a, groups=groups) == np.mean([abs(one) >= 3 for one in sums])


def test_where_nothing_differs_there_is_no_evidence():
    a, b = answers(5, 0, 0, 5)
    assert paired_test(a, b, groups=np.arange(10) // 2) == 1.0
    assert paired_test(a, b, weights=np.arange(10)) == 1.0
    # within the groups it cancels out
    assert paired_test([True, False], [False, True], groups=[0, 0]) == 1.0
