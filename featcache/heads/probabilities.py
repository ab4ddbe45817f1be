"""A fitted head as a Keras network from features to the probabilities of all classes, in their order.

Heads differ in what their last layer gives: one number for two classes or two, logits or probabilities.
A network that leaves the house gives one thing always, (n, classes) that sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from featcache.errors import ModelError
from featcache.heads.linear import LinearHead, linear_form
from featcache.runtime import keras, pooling_layer


def check_expressible(head: Any) -> None:
    """Refuse a head that cannot become layers of a network, without importing TensorFlow.

    Raises
    ------
    ModelError
        It cannot be expressed, or it gives no probabilities; the message says why and what to do.
    """
    if not hasattr(head, "to_keras"):
        _linear(head)


def probabilities_network(head: Any, features_shape: tuple[int, ...]) -> Any:
    """Return a fitted head as a Keras model.

    Parameters
    ----------
    head : DenseHead, KerasHead, LinearHead or a linear scikit-learn classifier
    features_shape : tuple of int
        Of one photo: (h, w, c) or (c,).

    Returns
    -------
    keras.Model
        From features (n, ...) to probabilities (n, classes), float32.

    Raises
    ------
    ModelError
        As `check_expressible`.
    """
    features = keras().Input(features_shape, name="features")
    values, link = _values(head, features)
    return keras().Model(features, _LINKS[link](values), name="head_with_probabilities")


def _values(head: Any, features: Any) -> tuple[Any, str]:
    """Return what the head's last product gives, and what makes probabilities of it."""
    if not hasattr(head, "to_keras"):
        form = _linear(head)
        return _linear_values(form, features), form.link
    network = head.to_keras()
    from_logits = getattr(head, "from_logits_", True)
    if not hasattr(head, "from_logits_"):
        # a Dense head's own network ends in probabilities; small ones survive as logits only
        network.layers[-1].activation = keras().activations.linear
    values = network(features, training=False)
    one = values.shape[-1] == 1
    if from_logits:
        return values, "sigmoid" if one else "softmax"
    return values, "second" if one else "given"


def _linear(head: Any) -> LinearHead:
    form = head if isinstance(head, LinearHead) else linear_form(head)
    if form.link == "none":
        raise ModelError(
            "the head decides without probabilities, and an exported model gives those of all classes; set "
            'calibrate = "temperature" in its [[heads]] and train it again, which makes probabilities of '
            "its decision values and leaves its labels as they are"
        )
    return form


def _linear_values(form: LinearHead, features: Any) -> Any:
    vectors = pooling_layer(form.pooling)(features) if len(features.shape) == 4 else features
    if form.unit_rows:
        vectors = keras().layers.UnitNormalization(name="unit_rows")(vectors)
    return _dense(vectors, form.weights, form.bias, "linear")


def _dense(vectors: Any, kernel: Any, bias: Any, name: str) -> Any:
    layer = keras().layers.Dense(np.shape(kernel)[1], name=name)
    values = layer(vectors)
    layer.set_weights([np.asarray(kernel, np.float32), np.asarray(bias, np.float32)])
    return values


def _sigmoid(values: Any) -> Any:
    # the softmax of (0, z) is the sigmoid of z, and keeps small probabilities on both sides
    return _softmax(_dense(values, [[0.0, 1.0]], [0.0, 0.0], "pair"))


def _softmax(values: Any) -> Any:
    return keras().layers.Softmax(name="probabilities")(values)


def _one_against_rest(values: Any) -> Any:
    # the softmax of the sigmoids' logarithms is the sigmoids' shares, also where all of them round to 0
    ops = keras().ops
    logarithms = ops.minimum(values, 0.0) - ops.log(1.0 + ops.exp(-ops.abs(values)))
    return _softmax(logarithms)


def _of_the_second(values: Any) -> Any:
    return _dense(values, [[-1.0, 1.0]], [1.0, 0.0], "pair")


_LINKS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "ovr": _one_against_rest,
    "second": _of_the_second,
    "given": lambda values: values,
}
