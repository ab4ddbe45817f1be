"""Spatial features become vectors."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from featcache.heads.pooling import Pool
from featcache.heads.vectors import pool

SPATIAL = np.arange(2 * 2 * 3 * 4, dtype=np.float32).reshape(2, 2, 3, 4)


@parametrize_with_checks([Pool()])
def test_pool_is_a_scikit_learn_transformer(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("flatten", SPATIAL.reshape(2, 24)),
        ("avg", SPATIAL.mean(axis=(1, 2))),
        ("max", SPATIAL.max(axis=(1, 2))),
    ],
)
def test_spatial_features_become_vectors(pooling, expected):
    np.testing.assert_array_equal(Pool(pooling).fit_transform(SPATIAL), expected)


@pytest.mark.parametrize("pooling", ["flatten", "avg", "max"])
def test_vectors_pass_through(pooling):
    vectors = SPATIAL.reshape(2, 24)
    np.testing.assert_array_equal(Pool(pooling).fit_transform(vectors), vectors)


def test_flatten_copies_nothing():
    assert np.shares_memory(pool(SPATIAL, "flatten"), SPATIAL)


def test_the_average_of_half_precision_is_summed_in_single_precision():
    features = np.full((1, 64, 64, 1), 40.0, np.float16)  # their sum is beyond float16
    vectors = pool(features, "avg")
    assert vectors.dtype == np.float32
    assert vectors[0, 0] == 40.0


@pytest.mark.parametrize("pooling", ["flatten", "avg", "max"])
def test_half_precision_comes_out_as_single(pooling):
    assert Pool(pooling).fit_transform(SPATIAL.astype(np.float16)).dtype == np.float32


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    features = SPATIAL.copy()
    features[1, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        Pool().fit_transform(features)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 1, 3, 4, 5)])
def test_other_numbers_of_axes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(n, h, w, c\)"):
        Pool().fit_transform(np.zeros(shape))


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match=r"pooling.*flatten"):
        Pool("mean").fit(SPATIAL)
