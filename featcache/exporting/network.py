"""Joins a model's base and its head to one network of Keras, from pixels to probabilities."""

from __future__ import annotations

from typing import Any

from featcache.evaluation.novelty import Novelty
from featcache.heads.novelty_network import novelty_network
from featcache.heads.probabilities import probabilities_network
from featcache.model import Model
from featcache.runtime import keras


def whole_network(model: Model, novelty: Novelty | None = None) -> Any:
    """Return the model as one Keras model, with its preprocessing inside.

    Parameters
    ----------
    model : Model
    novelty : Novelty, optional
        Then the network gives a dict of ``probabilities`` and ``novelty``, p-values (n,).

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
    features = base(pixels, training=False)
    probabilities = head(features, training=False)
    if novelty is None:
        return keras().Model(pixels, probabilities, name="classifier")
    p_values = novelty_network(novelty, model.spec.feature_shape)(features)
    outputs = {"probabilities": probabilities, "novelty": p_values}
    return keras().Model(pixels, outputs, name="classifier")
