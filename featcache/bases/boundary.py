"""Splits a network for fine-tuning: the frozen part is computed once, the part above it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from featcache.bases.contract import Network
from featcache.bases.private import inputs_of
from featcache.errors import BaseNetworkError, did_you_mean
from featcache.runtime import keras


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network, as tables show it.

    Attributes
    ----------
    index : int
        As the Keras tutorials count, the input layer being 0.
    name, type : str
    output_shape : tuple of int
        Without the batch.
    parameters : int
    trainable : bool
    """

    index: int
    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    trainable: bool


@dataclass(frozen=True)
class SplitNetwork:
    """A network split at its boundary, the last tensor before the trained layers that every path passes.

    Attributes
    ----------
    boundary : str
        Name of the layer whose output it is.
    upper : keras.Model
        From the boundary to the network's output; only its layers from the first trainable one are.
    layers : tuple of LayerRow
        Of the whole network.
    """

    boundary: str
    upper: Any
    layers: tuple[LayerRow, ...]


def split_at(
    network: Network, from_layer: str | None = None, unfreeze_from: int | None = None
) -> SplitNetwork:
    """Split a network at the first layer to train.

    With residual blocks the boundary may lie earlier than that layer: a skip connection around a layer has
    to be computed above the boundary, too.

    Parameters
    ----------
    network : Network
        Its layers below the first trainable one are frozen, the others unfrozen.
    from_layer : str, optional
        Name of the first layer to train.
    unfreeze_from : int, optional
        Its index instead, as in ``for layer in base_model.layers[:100]: layer.trainable = False``.

    Raises
    ------
    BaseNetworkError
        There is no such layer, or nothing from there on can be trained.
    """
    body = network.body
    first = _first_trainable(body, network.spec.name, from_layer, unfreeze_from)
    body.trainable = True
    for number, layer in enumerate(body.layers):
        layer.trainable = number >= first
    if not body.trainable_variables:
        raise BaseNetworkError(
            f"from layer {first} ({body.layers[first].name!r}) on, {network.spec.name} has no weights to "
            "train; choose an earlier layer"
        )
    boundary = _boundary(body.operations, body.layers[first])
    upper = keras().Model(boundary.output, body.output, name="upper")
    return SplitNetwork(boundary.name, upper, tuple(_rows(body)))


def _first_trainable(body: Any, name: str, from_layer: str | None, unfreeze_from: int | None) -> int:
    names = [layer.name for layer in body.layers]
    if from_layer is not None:
        if from_layer not in names:
            raise BaseNetworkError(
                f"finetune.from_layer = {from_layer!r} is not a layer of {name}."
                f"{did_you_mean(from_layer, names)} It has {len(names)} layers, from {names[1]!r} to "
                f"{names[-1]!r}"
            )
        return max(1, names.index(from_layer))
    if unfreeze_from is None or not 0 <= unfreeze_from < len(names):
        raise BaseNetworkError(
            f"finetune.unfreeze_from = {unfreeze_from}: {name} has {len(names)} layers; "
            f"give a number from 0 to {len(names) - 1}"
        )
    return max(1, unfreeze_from)


def _boundary(operations: Sequence[Any], first: Any) -> Any:
    """Return the last operation before `first` that no connection skips.

    In a topological order that is the same as lying on every path from input to output.
    """
    place = {operation: number for number, operation in enumerate(operations)}
    furthest = [0] * len(operations)
    for operation, number in place.items():
        for source in inputs_of(operation):
            if source in place:
                furthest[place[source]] = max(furthest[place[source]], number)
    open_until, boundary = 0, operations[0]
    for number in range(place[first]):
        # no later operation reads an earlier output
        if open_until <= number:
            boundary = operations[number]
        open_until = max(open_until, furthest[number])
    return boundary


def _rows(body: Any) -> list[LayerRow]:
    return [
        LayerRow(
            index=number,
            name=layer.name,
            type=type(layer).__name__,
            output_shape=tuple(layer.output.shape[1:]),
            parameters=layer.count_params(),
            trainable=bool(layer.trainable and layer.trainable_variables),
        )
        for number, layer in enumerate(body.layers)
    ]
