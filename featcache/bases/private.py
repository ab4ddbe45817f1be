"""Private names of Keras and TensorFlow that bases and exports need, in one place.

They have no public counterpart and may change in any release. Tested with Keras 3.15.1 and TensorFlow 2.21.0;
an upgrade of either starts with the tests of this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def inputs_of(operation: Any) -> Iterator[Any]:
    """Give the operations of a functional Keras model whose outputs `operation` takes."""
    for node in operation._inbound_nodes:
        for parent in node.parent_nodes:
            yield parent.operation


def own_weights(model: Any) -> Iterator[tuple[Any, Any]]:
    """Give each layer of a Keras model with each of its own trainable weights, nested models flattened.

    They are given in the order of the layers, also of layers that are frozen.
    """
    for layer in model._flatten_layers(include_self=False, recursive=True):
        for weight in layer._trainable_variables:
            yield layer, weight


def with_constants(concrete_function: Any) -> Any:
    """Return a concrete function of TensorFlow with its variables turned into constants."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(concrete_function)
