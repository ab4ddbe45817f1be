"""Two classifiers on the same rows are compared by SciPy's exact numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.evaluation import mcnemar_exact


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
