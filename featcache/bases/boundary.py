"""Divides a network for fine-tuning: what stays frozen and is computed once, and what is trained above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from featcache.bases.sources import Network
from featcache.errors import BaseNetworkError, did_you_mean
from featcache.runtime import keras


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network, for people.

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
class Division:
    """A network cut at its boundary, the latest tensor before what is trained that everything passes.

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


def divide(network: Network, from_layer: str | None = None, unfreeze_from: int | None = None) -> Division:
    """Divide a network at the first layer to train.

    Residual blocks are why the boundary may lie earlier than that layer: what jumps over a layer has to be
    computed above it, too.

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
    return Division(boundary.name, upper, tuple(_rows(body)))


def _first_trainable(body: Any, name: str, from_layer: str | None, unfreeze_from: int | None) -> int:
    names = [layer.name for layer in body.layers]
    if from_layer is not None:
        if from_layer not in names:
            raise BaseNetworkError(
                f"finetune.from_layer = {from_layer!r} is no layer of {name}."
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
    """Return the latest operation before `first` that no connection jumps over.

    In a topological order that is the same as lying on every way from input to output.
    """
    place = {operation: number for number, operation in enumerate(operations)}
    furthest = [0] * len(operations)
    for operation, number in place.items():
        for source in _sources(operation, place):
            furthest[source] = max(furthest[source], number)
    open_until, boundary = 0, operations[0]
    for number in range(place[first]):
        # what comes earlier is read here at the latest
        if open_until <= number:
            boundary = operations[number]
        open_until = max(open_until, furthest[number])
    return boundary


def _sources(operation: Any, place: dict[Any, int]) -> list[int]:
    parents = [parent.operation for node in operation._inbound_nodes for parent in node.parent_nodes]
    return [place[parent] for parent in parents if parent in place]


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
