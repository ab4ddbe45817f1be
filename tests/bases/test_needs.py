"""What is said of a model whose base is gone."""

from dataclasses import replace

import pytest

from featcache.bases.needs import what_is_needed, with_weights, wrong_weights
from featcache.bases.spec import BaseSpec
from featcache.errors import BaseNetworkError, WeightsError
from featcache.recipe import BaseSettings

SPEC = BaseSpec(
    name="MobileNetV2",
    architecture="keras.applications.MobileNetV2",
    arguments={},
    weights="ab" * 32,
    layer="out_relu",
    pooling="avg",
    image_size=(32, 32),
    resize="stretch",
    interpolation="bilinear",
    preprocessing="keras.applications.mobilenet_v2",
    precision="f32",
    dtype="float32",
    feature_shape=(1280,),
)
ADVISED = [
    WeightsError('base.weights = "w.h5": there is no such file; give a weights file, "imagenet" or "random"'),
    WeightsError("the ImageNet weights cannot be downloaded; try the pipeline with --weights random"),
    WeightsError("the preset cannot be loaded (x). Without internet use --weights FILE or --weights random"),
]


@pytest.mark.parametrize("error", ADVISED, ids=["file", "imagenet", "hub"])
@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"weights": "/elsewhere/w.weights.h5"}, "the file w.weights.h5"),
        ({"weights": "imagenet"}, "the ImageNet weights of MobileNetV2"),
        ({"name": "/elsewhere/own.keras"}, "the file own.keras"),
    ],
)
def test_the_weights_are_named_with_their_hash_and_others_never_suggested(settings, weights, error):
    said = what_is_needed(BaseSettings(**{"name": "MobileNetV2", **settings}), SPEC, error)
    assert f"trained with {weights} (SHA-256 of the values: {'ab' * 32})" in said
    assert all(word in said for word in (SPEC.folder_name, "--weights FILE", "--cache", "featcache pack"))
    assert "random" not in said
    assert "\n" not in said


def test_without_tensorflow_no_weights_help():
    said = what_is_needed(BaseSettings(), SPEC, ImportError("No module named 'tensorflow'"))
    assert "needs TensorFlow and Keras (No module named 'tensorflow')" in said
    assert "--weights" not in said


def test_wrong_weights_are_told_by_their_hashes():
    said = wrong_weights(replace(SPEC, weights="cd" * 32), SPEC)
    assert f"SHA-256 of the values: {'cd' * 32}, not {'ab' * 32}" in said
    assert "SHA-256" not in wrong_weights(replace(SPEC, layer="other"), SPEC)


def test_a_given_file_takes_the_place_of_the_weights_or_of_the_network(tmp_path):
    file, network = tmp_path / "w.weights.h5", tmp_path / "own.keras"
    file.touch()
    network.touch()
    of_file = BaseSettings(name="MobileNetV2", weights="/gone.h5")
    assert with_weights(of_file, str(file)).weights == str(file)
    of_network = BaseSettings(name="/gone/own.keras")
    assert with_weights(of_network, str(network)).name == str(network)
    for name in (str(tmp_path / "gone"), "random", str(tmp_path)):
        with pytest.raises(BaseNetworkError, match="there is no such file"):
            with_weights(of_file, name)
