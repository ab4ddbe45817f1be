from dataclasses import replace

import numpy as np
import pytest

from featcache.bases.base import Base
from featcache.bases.sources import build_network, weights_hash
from featcache.bases.spec import spec_key
from featcache.errors import BaseNetworkError, ModelError, WeightsError
from featcache.recipe import BaseSettings
from featcache.runtime import keras
from featcache.store.base_store import Store

TINY = {"name": "MobileNetV2", "arguments": {"alpha": 0.35}, "weights": "random", "image_size": 32}


def pixels(count=5, size=(32, 32), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


PREPROCESSING = {
    "VGG16": "vgg16",
    "MobileNet": "mobilenet",
    "MobileNetV2": "mobilenet_v2",
    "ResNet50": "resnet",
    "EfficientNetB0": "efficientnet",
}


def keras_predict(name, network, x):
    """Features as a Keras user would compute them, with the network's own preprocessing."""
    applications = keras().applications
    model = getattr(applications, name)(include_top=False, weights=None, input_shape=x.shape[1:])
    model.set_weights(network.model.get_weights())
    prepare = getattr(applications, PREPROCESSING[name]).preprocess_input
    return model.predict(prepare(x.astype(np.float32)), batch_size=len(x), verbose=0)


_LONG = {"ResNet50", "EfficientNetB0"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in _LONG)) for name in PREPROCESSING]
)
def test_features_are_those_of_keras_predict(name):
    x, expected = pixels(6, (64, 64)), None
    for pooling, pooled in (
        ("none", lambda features: features),
        ("avg", lambda features: features.mean(axis=(1, 2))),
        ("max", lambda features: features.max(axis=(1, 2))),
    ):
        settings = BaseSettings(name=name, weights="random", image_size=64, pooling=pooling, batch_size=4)
        base = Base(settings.model_copy(update={"engine": "tensorflow"}))
        if expected is None:
            expected = keras_predict(name, base._network, x)
        got = np.concatenate([base.features(x[:4]), base.features(x[4:])])
        assert got.shape == pooled(expected).shape == (6, *base.spec.feature_shape)
        for ours, theirs in zip(got, pooled(expected), strict=True):
            assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


def test_random_weights_are_the_same_every_time_and_differ_by_seed():
    one, same = build_network(BaseSettings(**TINY)), build_network(BaseSettings(**TINY))
    other = build_network(BaseSettings(**TINY, seed=1))
    assert one.spec == same.spec
    assert one.spec.fingerprint != other.spec.fingerprint


def test_a_rows_features_do_not_depend_on_its_batch():
    base, x = Base(BaseSettings(**TINY, batch_size=4)), pixels(4)
    assert np.array_equal(base.features(x)[:1], base.features(x[:1]))


def test_a_layer_inside_is_where_the_network_is_cut():
    whole = build_network(BaseSettings(**TINY, pooling="none"))
    cut = build_network(BaseSettings(**TINY, pooling="none", layer="block_3_expand_relu"))
    assert cut.spec.layer == "block_3_expand_relu"
    assert cut.spec.feature_shape[0] > whole.spec.feature_shape[0]
    assert cut.spec.weights != whole.spec.weights


def test_naming_the_last_layer_changes_nothing():
    default = build_network(BaseSettings(**TINY)).spec
    assert build_network(BaseSettings(**TINY, layer=default.layer)).spec == default


def test_rescale_and_none_replace_the_networks_own_preprocessing():
    x = pixels(2)
    own = {p: Base(BaseSettings(**TINY, preprocessing=p)).features(x) for p in ("auto", "rescale", "none")}
    rescaled = Base(BaseSettings(**TINY, preprocessing="rescale"))._network.model
    assert not np.allclose(own["auto"], own["rescale"])
    assert not np.allclose(own["rescale"], own["none"])
    assert rescaled.input.dtype == "uint8"


def test_the_base_does_not_train(tmp_path):
    network = build_network(BaseSettings(**TINY))
    before = weights_hash(network.model)
    network.model(pixels(4), training=True)
    assert weights_hash(network.model) == before
    assert not network.model.trainable_weights


def test_weights_come_from_a_file_and_the_fingerprint_is_of_their_values(tmp_path):
    model = keras().applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.35
    )
    first, second = tmp_path / "one.weights.h5", tmp_path / "two.weights.h5"
    model.save_weights(first)
    model.save_weights(second)
    settings = [BaseSettings(**TINY | {"weights": str(path)}) for path in (first, second)]
    specs = [build_network(one).spec for one in settings]
    assert specs[0] == specs[1]
    model.set_weights([w + 1 for w in model.get_weights()])
    model.save_weights(first)
    assert build_network(settings[0]).spec.fingerprint != specs[0].fingerprint


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path):
    model = keras().applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.5
    )
    path = tmp_path / "half.weights.h5"
    model.save_weights(path)
    text = tmp_path / "text.weights.h5"
    text.write_text("no weights")
    for wrong in (path, text):
        with pytest.raises(WeightsError, match="do not fit") as caught:
            build_network(BaseSettings(**TINY | {"weights": str(wrong)}))
        assert "\n" not in str(caught.value)


def test_unreachable_imagenet_weights_name_the_ways_out(monkeypatch):
    def offline(*_, **__):
        raise Exception("URL fetch failure on https://…: None -- no route to host")

    applications = keras().applications
    monkeypatch.setattr(applications, "MobileNetV2", offline)
    with pytest.raises(WeightsError, match=r"--weights FILE.*--weights random"):
        build_network(BaseSettings(**TINY | {"weights": "imagenet"}))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"layer": "block_3_expand_rely"}, "Did you mean 'block_3_expand_relu'"),
        ({"arguments": {"alpa": 0.35}}, "alpa"),
        ({"name": "InceptionV3", "arguments": {}, "image_size": 40}, "at least 75x75"),
        ({"name": "hub:resnet_19_imagenet", "arguments": {}}, "not a preset of KerasHub. Did you mean"),
    ],
)
def test_what_a_network_does_not_take_is_refused(given, words):
    with pytest.raises(BaseNetworkError, match=words):
        build_network(BaseSettings(**TINY | given))


def test_resnet18_of_kerashub_builds():
    spec = build_network(BaseSettings(name="hub:resnet_18_imagenet", weights="random", image_size=64)).spec
    assert spec.feature_shape == (512,)
    assert spec.name == "resnet_18_imagenet"
    assert spec.preprocessing == "torch"


def test_a_keras_file_of_ones_own(tmp_path):
    model = keras().Sequential(
        [keras().Input((32, 32, 3)), keras().layers.Conv2D(4, 3, strides=2, name="conv")]
    )
    path = tmp_path / "mine.keras"
    model.save(path)
    settings = BaseSettings(name=str(path), image_size=32, pooling="none", precision="f32")
    base, x = Base(settings), pixels(3)
    assert np.allclose(base.features(x), model.predict(x.astype(np.float32), verbose=0), atol=1e-3)
    assert base.spec.name == "mine"
    with pytest.raises(BaseNetworkError, match=r"base\.image_size"):
        build_network(settings.model_copy(update={"image_size": (64, 64)}))


def test_layers_that_keras_numbers_have_the_same_names_every_time():
    """MobileNetV3's activations have no names of their own; Keras counts them in the whole process."""
    settings = BaseSettings(name="MobileNetV3Small", weights="random", image_size=32, layer="activation_3")
    first, again = build_network(settings), build_network(settings)
    names = [layer.name for layer in again.body.layers]
    assert names[1:] == [layer.name for layer in first.body.layers][1:]
    assert len(names) == len(set(names))
    assert again.spec == first.spec


def test_a_sum_that_is_no_layer_can_be_where_the_network_is_cut(tmp_path):
    pixels_in = keras().Input((32, 32, 3))
    once = keras().layers.Conv2D(4, 3, strides=4, name="conv")(pixels_in)
    out = keras().layers.Conv2D(2, 1, name="after")(once + once)
    path = tmp_path / "sum.keras"
    keras().Model(pixels_in, out).save(path)
    settings = BaseSettings(name=str(path), image_size=32, pooling="none", layer="add")
    at_conv = build_network(settings.model_copy(update={"layer": "conv"}))
    x = pixels(2)
    np.testing.assert_allclose(build_network(settings).model(x), 2 * at_conv.model(x), rtol=1e-5)


def test_a_keras_file_with_code_in_it_is_not_run(tmp_path):
    model = keras().Sequential([keras().Input((32, 32, 3)), keras().layers.Lambda(lambda x: x + 1)])
    path = tmp_path / "code.keras"
    model.save(path)
    with pytest.raises(BaseNetworkError, match="safe mode"):
        build_network(BaseSettings(name=str(path), image_size=32))


def test_a_known_base_builds_no_network_before_pixels_come(tmp_path, monkeypatch):
    store = Store(tmp_path)
    spec = Base(BaseSettings(**TINY), store).spec
    monkeypatch.setattr("featcache.bases.sources.build_network", None)
    assert Base(BaseSettings(**TINY), store).spec == spec


def test_weights_that_changed_under_the_same_key_are_noticed(tmp_path):
    """As when another download gives other weights: the remembered entry is whole, but no longer true."""
    store, settings = Store(tmp_path), BaseSettings(**TINY)
    resolution = Base(settings, store).resolve()
    other = replace(resolution, spec=replace(resolution.spec, layer="other"))
    store.save_spec(spec_key(settings), other.to_json())
    base = Base(settings, store)
    assert base.spec.layer == "other"
    with pytest.raises(ModelError, match="run again"):
        base.features(pixels(2))
    assert Base(settings, store).spec.layer == "out_relu"
