import numpy as np
import pytest

from featcache.runtime import pooling_layer

FEATURES = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("flatten", FEATURES.reshape(2, -1)),
        ("avg", FEATURES.mean(axis=(1, 2))),
        ("max", FEATURES.max(axis=(1, 2))),
    ],
)
def test_a_pooling_layer_gives_vectors(pooling, expected):
    layer = pooling_layer(pooling, "pooling")
    assert layer.name == "pooling"
    np.testing.assert_allclose(layer(FEATURES), expected, rtol=1e-5, atol=1e-6)


def test_no_pooling_is_no_layer():
    assert pooling_layer("none") is None
