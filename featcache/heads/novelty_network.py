"""Novelty as a Keras network from features to p-values, of layers and operations that all formats know."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.evaluation.novelty import Novelty
from featcache.runtime import keras

# between which is interpolated: half of them close together where p-values are small, half evenly spaced
_STEPS = 64


def novelty_network(novelty: Novelty, features_shape: tuple[int, ...]) -> Any:
    """Return what `Novelty.p_values` computes as a Keras model, in float32.

    Of many steps between which is interpolated, 64 are kept, so that p-values differ by up to some percent.

    Parameters
    ----------
    novelty : Novelty
    features_shape : tuple of int
        Of one photo: (h, w, c) or (c,).

    Returns
    -------
    keras.Model
        From features (n, ...) to p-values (n,), float32.
    """
    ops, layers = keras().ops, keras().layers
    features = keras().Input(features_shape, name="features")
    pooled = layers.GlobalAveragePooling2D()(features) if len(features_shape) == 3 else features
    vectors = layers.UnitNormalization()(pooled)
    distances = _distances(novelty, vectors)
    smallest = ops.min(distances, axis=1, keepdims=True)
    # an argmin of Keras's becomes a Bitcast, which neither ONNX nor OpenVINO has
    is_nearest = ops.cast(ops.less_equal(distances, smallest), "float32")
    nearest = is_nearest / ops.sum(is_nearest, axis=1, keepdims=True)
    tables = _tables(novelty)
    starts, lengths, drops = (_chosen(nearest, one, name) for name, one in tables.items())
    passed = ops.clip((smallest - starts) / lengths, 0.0, 1.0)
    p_values = 1.0 - ops.sum(passed * drops, axis=1)
    return keras().Model(features, p_values, name="novelty")


def _distances(novelty: Novelty, vectors: Any) -> Any:
    """``|x|² - |factor x|²`` and what is linear in x, for every class.

    x is the vector less the mean of all classes: differences of large numbers would be rounded in float32.
    """
    ops = keras().ops
    means, factor = novelty.means.astype(np.float64), novelty.factor.astype(np.float64)
    centre = means.mean(axis=0)
    vectors = keras().layers.Normalization(mean=centre, variance=np.ones(len(centre)))(vectors)
    means = means - centre
    inner = means @ factor.T
    constant = (means**2).sum(axis=1) - (inner**2).sum(axis=1)
    linear = _dense(vectors, -2 * (means - inner @ factor).T, constant, "classes")
    # it is subtracted: Keras's addition takes (n, 1) for a bias where n is the number of classes
    common = -ops.sum(ops.square(vectors), axis=1, keepdims=True)
    if len(factor):
        projected = _dense(vectors, factor.T, np.zeros(len(factor)), "directions")
        common = ops.sum(ops.square(projected), axis=1, keepdims=True) + common
    return linear - common


def _tables(novelty: Novelty) -> dict[str, NDArray[np.float64]]:
    """Return where each step begins, its length, and how much the p-value falls, each of shape (k, steps)."""
    rows = []
    for distances, p_values in novelty.steps():
        last = len(distances) - 1
        spaced = [space(1, last + 1, _STEPS // 2) for space in (np.geomspace, np.linspace)]
        from_last = np.unique(np.concatenate(spaced).round().astype(int)) - 1
        kept = last - from_last[::-1]
        x, p = distances[kept], np.append(1.0, p_values[kept])
        # the first step, from 1, is behind every distance
        starts, lengths = np.append(x[0] - 2.0, x[:-1]), np.append(1.0, np.diff(x))
        filled = ((starts, 0.0), (lengths, 1.0), (-np.diff(p), 0.0))
        rows.append([np.pad(one, (0, _STEPS - len(x)), constant_values=fill) for one, fill in filled])
    found = np.array(rows)
    return {name: found[:, place] for place, name in enumerate(("starts", "lengths", "drops"))}


def _chosen(one_hot: Any, table: NDArray[np.float64], name: str) -> Any:
    """Return the rows of a table (k, steps) of the classes that are chosen."""
    return _dense(one_hot, table, np.zeros(table.shape[1]), name)


def _dense(vectors: Any, kernel: Any, bias: Any, name: str) -> Any:
    layer = keras().layers.Dense(np.shape(kernel)[1], name=name)
    values = layer(vectors)
    layer.set_weights([np.asarray(kernel, np.float32), np.asarray(bias, np.float32)])
    return values
