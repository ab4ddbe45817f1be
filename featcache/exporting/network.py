"""Joins a model's base and its head to one network of Keras, from pixels to probabilities."""

from __future__ import annotations

from typing import Any

from featcache.heads.probabilities import probabilities_network
from featcache.model import Model
from featcache.runtime import keras


def whole_network(model: Model) -> Any:
    """Return the model as one Keras model, with its preprocessing inside.

    Returns
    -------
    keras.Model
        From uint8 pixels (n, height, width, 3) to probabilities (n, classes) that sum to 1.

    Raises
    ------
    ModelError
        The base is no longer the one that the head was trained on, or the head cannot be expressed.
    BaseNetworkError, WeightsError
        The base cannot be built.
    """
    base = model.base(1).keras_network().model
    head = probabilities_network(model.head, model.spec.feature_shape)
    pixels = keras().Input(base.input_shape[1:], dtype="uint8", name="pixels")
    probabilities = head(base(pixels, training=False), training=False)
    return keras().Model(pixels, probabilities, name="classifier")
