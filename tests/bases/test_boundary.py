"""The boundary is the latest tensor before the trained layers that everything passes."""

import numpy as np
import pytest

from featcache.bases.boundary import split_at
from featcache.bases.sources import build_network
from featcache.errors import BaseNetworkError
from featcache.recipe import BaseSettings
from featcache.runtime import keras


@pytest.fixture(scope="module")
def mobilenet():
    return build(name="MobileNetV2", arguments={"alpha": 0.35}, image_size=32)


def build(**settings):
    return build_network(BaseSettings(weights="random", pooling="none", **settings))


def readers(body):
    """For each layer the layers that read it."""
    found = {layer.name: set() for layer in body.operations}
    for layer in body.operations:
        for node in layer._inbound_nodes:
            for parent in node.parent_nodes:
                if parent.operation.name in found:
                    found[parent.operation.name].add(layer.name)
    return found


def reaches_the_end_without(body, name):
    """Say whether a way from input to output leaves the layer out, by walking."""
    following, seen, todo = readers(body), set(), [body.operations[0].name]
    while todo:
        at = todo.pop()
        if at != name and at not in seen:
            seen.add(at)
            todo += following[at]
    return body.operations[-1].name in seen


@pytest.mark.parametrize("unfreeze_from", [5, 60, 100, 101, 140, 151])
def test_it_is_the_latest_that_no_way_avoids(mobilenet, unfreeze_from):
    names = [layer.name for layer in mobilenet.body.layers]
    split = split_at(mobilenet, unfreeze_from=unfreeze_from)
    at = names.index(split.boundary)
    assert at < unfreeze_from
    assert not reaches_the_end_without(mobilenet.body, split.boundary)
    assert all(reaches_the_end_without(mobilenet.body, name) for name in names[at + 1 : unfreeze_from])


def test_above_and_below_are_the_whole(mobilenet):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    split = split_at(mobilenet, unfreeze_from=100)
    below = build(name="MobileNetV2", arguments={"alpha": 0.35}, image_size=32, layer=split.boundary).model(
        pixels, training=False
    )
    whole = mobilenet.model(pixels, training=False)
    np.testing.assert_allclose(split.upper(below, training=False), whole, atol=1e-5)


def test_only_the_layers_from_the_first_one_are_trained(mobilenet):
    split = split_at(mobilenet, unfreeze_from=100)
    trained = [row.index for row in split.layers if row.trainable]
    assert min(trained) >= 100
    weights = {id(v) for layer in mobilenet.body.layers[100:] for v in layer.trainable_variables}
    assert {id(v) for v in split.upper.trainable_variables} == weights
    assert len(split.layers) == len(mobilenet.body.layers) == 154
    assert split.layers[0].parameters == 0


def test_without_blocks_it_is_the_layer_before():
    network = build(name="VGG16", image_size=32)
    split = split_at(network, from_layer="block5_conv1")
    assert split.boundary == "block4_pool"
    assert [row.name for row in split.layers if row.trainable] == [f"block5_conv{n}" for n in (1, 2, 3)]
    assert split_at(network, unfreeze_from=15).boundary == "block4_pool"


def test_a_whole_network_can_be_trained(mobilenet):
    split = split_at(mobilenet, unfreeze_from=0)
    assert isinstance(mobilenet.body.get_layer(split.boundary), keras().layers.InputLayer)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"from_layer": "block_13_expnd"}, r"not a layer of MobileNetV2.*Did you mean 'block_13_expand'"),
        ({"unfreeze_from": 154}, r"unfreeze_from = 154: MobileNetV2 has 154 layers.*0 to 153"),
        ({"from_layer": "out_relu"}, "no weights to train"),
    ],
)
def test_what_cannot_be_trained_is_refused(mobilenet, where, message):
    with pytest.raises(BaseNetworkError, match=message):
        split_at(mobilenet, **where)
