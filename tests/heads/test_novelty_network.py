"""Novelty as a network gives the p-values of the score itself."""

import numpy as np
import pytest

from featcache.evaluation.novelty import Novelty
from featcache.heads.novelty_network import novelty_network


def photos(shape, counts, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = np.random.default_rng(9).normal(0, 1, (len(counts), *shape))
    return (centres[labels] + rng.normal(0, 0.7, (len(labels), *shape))).astype(np.float32), labels


@pytest.mark.parametrize("shape", [(20,), (2, 3, 20)], ids=["pooled", "spatial"])
@pytest.mark.parametrize("counts", [(400, 30, 5), (3, 3)], ids=["many", "few"])
def test_the_network_gives_the_p_values_of_the_score(shape, counts):
    novelty = Novelty.fit(*photos(shape, counts))
    X = np.concatenate([photos(shape, counts, seed=1)[0], np.random.default_rng(2).normal(size=(30, *shape))])
    found = np.asarray(novelty_network(novelty, shape)(X.astype(np.float32)))
    expected = novelty.p_values(X)
    assert found.shape == (len(X),)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert ((found < 0.05) == (expected < 0.05)).mean() > 0.99


def test_equal_photos_are_known_in_float32_too():
    novelty = Novelty.fit(np.ones((60, 5), np.float32), np.repeat([0, 1], 30))
    known, other = np.asarray(novelty_network(novelty, (5,))(np.float32([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])))
    assert known > 0.5
    assert other < 0.05
