"""The upper layers of a network and a Dense head as one model to train."""

from __future__ import annotations

from typing import Any

import numpy as np

from featcache.heads.dense.head import DenseHead
from featcache.heads.keras_head import KerasHead
from featcache.runtime import keras, pooling_layer, tensorflow


class Top:
    """The upper part of a network, its pooling and a Dense head as one thing to train.

    Parameters
    ----------
    upper : keras.Model
        From the boundary to the network's last layer.
    pooling : {"none", "avg", "max"}
        Of the base.
    head : DenseHead
        Fitted on what the base gives.
    seed : int
        Of the head's dropout.
    below : keras.Model, optional
        From pixels to the boundary: then training runs through the whole network.
    augmentation : keras.Model, optional
        What pixels go through first, in training only.
    precision : {"f32", "bf16"}
        Of the products in `upper` while it is trained; weights, their updates and the head are f32 in any
        case (mixed precision: Micikevicius et al., 2018).
    """

    def __init__(
        self,
        upper: Any,
        pooling: str,
        head: DenseHead,
        seed: int = 0,
        below: Any = None,
        augmentation: Any = None,
        precision: str = "f32",
    ) -> None:
        self._whole, self._below, self._augmentation = upper, below, augmentation
        self._upper = _in_bf16(upper) if precision == "bf16" else upper
        self._head = _head_layers(head, upper.output_shape[1:], pooling, seed)
        self.binary = len(head.classes_) == 2
        self.classes = head.classes_
        self.shape = tuple(map(int, (below or upper).input_shape[1:]))
        self.trainable = [*self._upper.trainable_variables, *self._head.trainable_variables]

    @property
    def variables(self) -> list[Any]:
        """All that training changes, also the states of dropout's and augmentation's random numbers."""
        augmentation = self._augmentation.variables if self._augmentation is not None else []
        return [*self.trainable, *self._head.non_trainable_variables, *augmentation]

    def __call__(self, rows: Any, training: bool) -> Any:
        """Return logits of rows of flattened features, or of pixels."""
        inputs = tensorflow().reshape(rows, [-1, *self.shape])
        if training and self._augmentation is not None:
            inputs = self._augmentation(inputs, training=True)
        if self._below is not None:
            inputs = self._below(inputs, training=False)
        else:
            inputs = tensorflow().cast(inputs, "float32")
        features = tensorflow().cast(self._upper(inputs, training=False), "float32")
        return self._head(features, training=training)

    def classifier(self, history: dict[str, list[float]]) -> KerasHead:
        """Return what was trained as a head on the boundary's features, computing in f32."""
        module = keras()
        if self._upper is not self._whole:
            self._whole.set_weights(self._upper.get_weights())
        inputs = module.Input(self._whole.input_shape[1:], name="features")
        model = module.Model(
            inputs, self._head(self._whole(inputs, training=False), training=False), name="top"
        )
        head = KerasHead(None)
        head.model_, head.from_logits_ = model, True
        head.classes_ = self.classes
        head.features_shape_ = tuple(map(int, self._whole.input_shape[1:]))
        head.n_features_in_ = int(np.prod(head.features_shape_))
        head.history_, head.n_iter_ = history, len(history["loss"])
        return head


def _in_bf16(model: Any) -> Any:
    """Return a copy that multiplies bf16 numbers; its weights stay f32."""

    def copy(operation: Any) -> Any:
        # a sum between layers is no layer; it takes numbers as they come
        policy = {"dtype": "mixed_bfloat16"} if isinstance(operation, keras().layers.Layer) else {}
        return type(operation).from_config({**operation.get_config(), **policy})

    clone = keras().models.clone_model(model, clone_function=copy)
    clone.set_weights(model.get_weights())
    return clone


def _head_layers(head: DenseHead, shape: tuple[int, ...], pooling: str, seed: int) -> Any:
    """Return the base's pooling and the fitted head, up to its logits, as a Keras model."""
    module = keras()
    layers: list[Any] = [module.Input(shape)]
    if pooling != "none" and len(shape) == 3:
        layers.append(pooling_layer(pooling, "base_pooling"))
    of_head = head.to_keras().layers
    of_head[-1].activation = module.activations.linear
    for layer in of_head:
        if isinstance(layer, module.layers.Dropout):
            layer.seed_generator.state.assign([seed, 0])
    return module.Sequential([*layers, *of_head], name="head")
