"""A head comes back from its file as it was, and nothing else comes out of a file."""

import io
import json
import pickle
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from featcache.errors import FeatcacheError, ModelError, RecipeError
from featcache.heads.dense.head import DenseHead
from featcache.heads.estimators import _known_types, build_head
from featcache.heads.keras_files import MEMBER
from featcache.heads.keras_head import KerasHead
from featcache.heads.persistence import load_head, save_head
from featcache.recipe import HeadSettings
from featcache.runtime import keras

Y = np.array(["cat", "dog", "eel"])[np.arange(60) % 3]
X = np.random.default_rng(0).normal(size=(60, 2, 3, 4)).astype(np.float32)
X += 2 * (Y == "dog")[:, None, None, None] - 2 * (Y == "eel")[:, None, None, None]


def dense(**settings):
    return DenseHead(epochs=3, learning_rate=0.05, random_state=0, **settings)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A Dense head and its file."""
    folder = tmp_path_factory.mktemp("head")
    head = dense(units=(5, 4), dropout=0.3, pooling="avg").fit(X, Y, validation_data=(X, Y))
    return head, folder / save_head(head, folder)


def rewritten(path, target, **members):
    """Copy a .keras archive with some members replaced, or left out where they are None."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = members.get(name.replace(".", "_"), old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def test_keras_itself_and_numpy_read_the_same_dense_head(saved):
    import keras

    head, path = saved
    loaded, model = load_head(path), keras.saving.load_model(path, safe_mode=True)
    assert path.name == "head.keras"
    np.testing.assert_array_equal(loaded.predict_proba(X), head.predict_proba(X))
    np.testing.assert_allclose(model.predict(X, verbose=0), head.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(
    "labels", [Y, Y == "cat", np.arange(60) % 2, np.array(list(Y), dtype=object)], ids=str
)
@pytest.mark.parametrize(
    "settings", [{}, {"units": 6}, {"pooling": "max", "class_weight": "balanced"}], ids=str
)
def test_a_dense_head_comes_back_whole(tmp_path, labels, settings):
    head = dense(**settings).fit(X, labels)
    loaded = load_head(tmp_path / save_head(head, tmp_path))
    np.testing.assert_array_equal(loaded.predict(X), head.predict(X))
    assert loaded.classes_.dtype == head.classes_.dtype
    assert loaded.get_params() == head.get_params()
    for name in ("before_", "history_", "best_epoch_", "n_iter_", "n_features_in_", "features_shape_"):
        assert getattr(loaded, name) == getattr(head, name)


def test_class_weights_of_numbers_come_back_as_numbers(tmp_path):
    head = dense(class_weight={0: 1.0, 1: np.float64(2.0)}).fit(X, np.arange(60) % 2)
    loaded = load_head(tmp_path / save_head(head, tmp_path))
    assert loaded.class_weight == {0: 1.0, 1: 2.0}


@pytest.mark.filterwarnings("ignore")  # what the classifiers say about this toy data is not at stake
@pytest.mark.parametrize("kind", [name for name in _known_types() if name != "dense"])
def test_every_scikit_learn_classifier_comes_back(tmp_path, kind):
    head = build_head(HeadSettings(type=kind, pooling="avg"), random_state=0)
    features = np.abs(X).round() if kind.endswith("NB") else X
    head.fit(features, Y)
    path = tmp_path / save_head(head, tmp_path)
    assert path.name == "head.skops"
    np.testing.assert_array_equal(load_head(path).predict(features), head.predict(features))


def test_only_the_whole_file_is_left(saved, tmp_path):
    assert [path.name for path in saved[1].parent.iterdir()] == ["head.keras"]
    head = dense().fit(X, Y)
    head.to_keras = None  # writing fails half-way
    with pytest.raises(TypeError):
        save_head(head, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_an_error(saved, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatcacheError):
        save_head(saved[0], tmp_path / "file")


def test_loading_and_predicting_import_no_tensorflow(saved):
    head, path = saved
    code = f"""
import io, sys, numpy as np
from featcache.heads.persistence import load_head
print(load_head({str(path)!r}).predict(np.load(io.BytesIO(sys.stdin.buffer.read()))).tolist())
print([name for name in ("tensorflow", "keras") if name in sys.modules])
"""
    features = io.BytesIO()
    np.save(features, X[:5])
    done = subprocess.run(
        [sys.executable, "-c", code], input=features.getvalue(), capture_output=True, check=True
    )
    assert done.stdout.decode().splitlines() == [str(head.predict(X[:5]).tolist()), "[]"]


class Harm:
    def __reduce__(self):
        return (print, ("harm",))


@pytest.mark.parametrize("suffix", [".pickle", ".pkl", ".joblib"])
def test_pickles_are_never_loaded(tmp_path, capsys, suffix):
    path = tmp_path / f"head{suffix}"
    path.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(ModelError, match="never loads"):
        load_head(path)
    assert capsys.readouterr().out == ""


class Foreign(LogisticRegression):
    """A class that is not scikit-learn's."""


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Foreign(), "Foreign"),
        (lambda: make_pipeline(FunctionTransformer(subprocess.getoutput), LogisticRegression()), "getoutput"),
        (
            lambda: make_pipeline(FunctionTransformer(np.ctypeslib.load_library), LogisticRegression()),
            "load_library",
        ),
        (lambda: make_pipeline(FunctionTransformer(eval), LogisticRegression()), "eval"),
    ],
    ids=["class", "function", "function of NumPy", "builtin"],
)
def test_types_that_are_not_trusted_are_refused_by_name(tmp_path, make, named):
    import skops.io

    with pytest.raises(ModelError, match=f"{named}.*not trusted"):
        save_head(make(), tmp_path)
    skops.io.dump(make(), tmp_path / "head.skops")
    with pytest.raises(ModelError, match=f"{named}.*not trusted"):
        load_head(tmp_path / "head.skops")


@pytest.mark.parametrize("other", [LinearRegression(), TransformedTargetRegressor(), {"a": 1}], ids=str)
def test_what_is_no_classifier_is_refused(tmp_path, other):
    import skops.io

    skops.io.dump(other, tmp_path / "head.skops")
    with pytest.raises(ModelError, match="not a classifier"):
        load_head(tmp_path / "head.skops")


@pytest.mark.parametrize("name", ["head.keras", "head.skops"])
def test_damaged_files_are_refused(tmp_path, saved, name):
    if name == "head.skops":
        save_head(LogisticRegression().fit(X.reshape(60, -1), Y), tmp_path)
        whole = (tmp_path / name).read_bytes()
    else:
        whole = saved[1].read_bytes()
    middle = len(whole) // 2
    for content in (
        b"",
        b"hello",
        whole[:middle],
        whole[: middle - 200] + bytes(400) + whole[middle + 200 :],
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=name):
            load_head(tmp_path / name)


@pytest.mark.parametrize("name", ["head.keras", "head.skops"])
def test_a_missing_file_is_an_error(tmp_path, name):
    with pytest.raises(ModelError, match="does not exist"):
        load_head(tmp_path / name)


def test_other_kinds_of_files_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"\.keras or a \.skops"):
        load_head(tmp_path / "head.onnx")


def test_a_plain_keras_model_is_refused(saved, tmp_path):
    path = rewritten(saved[1], tmp_path / "head.keras", featcache_json=None)
    with pytest.raises(ModelError, match=MEMBER):
        load_head(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update(format=99), "format 99"),
        (lambda state: state.update(kind="forest"), "kind 'forest'"),
        (lambda state: state["parameters"].update(units=[7]), "shapes"),
        (lambda state: state.update(classes=["a", "b"]), "shapes"),
        (lambda state: state["parameters"].update(activation="system"), "activation"),
        (lambda state: state.pop("fitted"), "fitted"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(saved, tmp_path, change, message):
    with zipfile.ZipFile(saved[1]) as archive:
        state = json.loads(archive.read(MEMBER))
    change(state)
    path = rewritten(saved[1], tmp_path / "head.keras", featcache_json=json.dumps(state))
    with pytest.raises(ModelError, match=message):
        load_head(path)


@pytest.mark.parametrize("kind", ["link", "external", "virtual"])
def test_weights_in_other_files_are_refused(saved, tmp_path, kind):
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["kernel"] = np.ones((4, 5), np.float32)
    raw = tmp_path / "secret.bin"
    raw.write_bytes(bytes(80))
    with zipfile.ZipFile(saved[1]) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content, "a") as file:
        group = file["layers/dense/vars"]
        del group["0"]
        if kind == "link":
            group["0"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "kernel")
        elif kind == "external":
            group.create_dataset("0", (4, 5), "f4", external=[(str(raw), 0, 80)])
        else:
            layout = h5py.VirtualLayout((4, 5), "f4")
            layout[...] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "kernel", (4, 5))
            group.create_virtual_dataset("0", layout)
    path = rewritten(saved[1], tmp_path / "head.keras", model_weights_h5=content.getvalue())
    with pytest.raises(ModelError, match=r"link to elsewhere|another file"):
        load_head(path)


def test_a_dense_head_of_the_first_files_had_no_kind(saved, tmp_path):
    with zipfile.ZipFile(saved[1]) as archive:
        state = json.loads(archive.read(MEMBER))
    assert state.pop("kind") == "dense"
    path = rewritten(saved[1], tmp_path / "head.keras", featcache_json=json.dumps(state))
    np.testing.assert_array_equal(load_head(path).predict_proba(X), saved[0].predict_proba(X))


def test_an_older_dense_head_says_nothing_of_before_training(saved, tmp_path):
    head, path = saved
    assert set(head.before_) == {"loss", "accuracy"}
    assert load_head(path).before_ == head.before_
    with zipfile.ZipFile(path) as archive:
        state = json.loads(archive.read(MEMBER))
    del state["fitted"]["before_"]
    old = load_head(rewritten(path, tmp_path / "head.keras", featcache_json=json.dumps(state)))
    assert old.before_ is None
    np.testing.assert_array_equal(old.predict_proba(X), head.predict_proba(X))


# A user's own Keras model


def own(*ends, loss="sparse_categorical_crossentropy"):
    """Return a build_fn with much of what Keras offers; `ends` are functions from numbers to numbers."""

    def build(features_shape, classes):
        layers = keras().layers
        features = keras().Input(features_shape)
        x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(features))
        inner = keras().Sequential([keras().Input((4,)), layers.Dense(4, "relu", kernel_regularizer="l2")])
        x = keras().ops.add(layers.Dropout(0.2)(inner(x)), 1)
        for end in ends:
            x = end(x)
        model = keras().Model(features, layers.Dense(classes, "softmax", kernel_constraint="max_norm")(x))
        model.compile("adam", loss, run_eagerly=True)
        return model

    return build


def fitted(build, labels=Y, **settings):
    return KerasHead(build, epochs=2, batch_size=60, random_state=0, **settings).fit(X, labels)


@pytest.fixture(scope="module")
def saved_own(tmp_path_factory):
    """A Keras head and its file."""
    folder = tmp_path_factory.mktemp("own")
    stop = [keras().callbacks.EarlyStopping(monitor="loss")]
    head = fitted(own(), class_weight={"cat": 2.0, "dog": 1.0, "eel": np.float64(1)}, callbacks=stop)
    return head, folder / save_head(head, folder)


def test_keras_itself_and_featcache_read_the_same_model(saved_own):
    head, path = saved_own
    loaded = load_head(path)
    assert path.name == "head.keras"
    np.testing.assert_allclose(loaded.predict_proba(X), head.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(loaded.predict(X), head.predict(X))
    model = keras().saving.load_model(path, safe_mode=True)
    assert model.loss == "sparse_categorical_crossentropy"
    np.testing.assert_allclose(model.predict(X, verbose=0), head.predict_proba(X), atol=1e-6)


def test_a_keras_head_comes_back_whole_but_for_its_code(saved_own):
    head, loaded = saved_own[0], load_head(saved_own[1])
    assert loaded.get_params() == {**head.get_params(), "build_fn": None, "callbacks": ()}
    assert loaded.classes_.dtype == head.classes_.dtype
    for name in ("history_", "n_iter_", "n_features_in_", "features_shape_", "from_logits_"):
        assert getattr(loaded, name) == getattr(head, name)


def test_a_loaded_keras_head_says_what_it_lacks_to_be_fitted(saved_own):
    loaded = load_head(saved_own[1])
    with pytest.raises(RecipeError, match=r"no build_fn.*set_params\(build_fn=\.\.\.\)"):
        loaded.fit(X, Y)
    assert loaded.set_params(build_fn=own(), epochs=1).fit(X, Y).n_iter_ == 1


@pytest.mark.filterwarnings("error:The object being serialized")
def test_a_loss_of_the_users_own_is_left_out(tmp_path):
    head = fitted(own(loss=lambda true, given: keras().ops.mean((true - given) ** 2, axis=-1)))
    path = tmp_path / save_head(head, tmp_path)
    assert b"lambda" not in path.read_bytes()
    np.testing.assert_allclose(load_head(path).predict_proba(X), head.predict_proba(X), atol=1e-6)
    assert not keras().saving.load_model(path, safe_mode=True).compiled


def custom_layer():
    @keras().saving.register_keras_serializable("tests")
    class Doubled(keras().layers.Layer):
        def call(self, x):
            return 2 * x

    return Doubled()


CODE = {
    "Lambda": lambda: keras().layers.Lambda(lambda x: 2 * x),
    "Doubled": custom_layer,
    "function": lambda: keras().layers.Activation(lambda x: 2 * x),
}


@pytest.mark.filterwarnings("error:The object being serialized")
@pytest.mark.parametrize("name", CODE)
def test_code_in_a_model_is_not_kept(tmp_path, name):
    head = fitted(own(lambda x: CODE[name]()(x)))
    with pytest.raises(ModelError, match=r"(code|not be read back).*to_keras\(\)\.save"):
        save_head(head, tmp_path)
    assert list(tmp_path.iterdir()) == []


def softmax_of(part):
    """Return an edit of config.json that puts `part` in place of the last layer's activation."""

    def edit(config):
        dense = config["config"]["layers"][-1]
        assert dense["class_name"] == "Dense"
        dense["config"]["activation"] = part

    return edit


HARM = {
    "Lambda": softmax_of({"module": "keras.layers", "class_name": "Lambda", "config": {}}),
    "__lambda__": softmax_of({"class_name": "__lambda__", "config": {"value": "4wAAAA=="}}),
    "TFSMLayer": softmax_of({"module": "keras.layers", "class_name": "TFSMLayer", "config": {}}),
    "function": softmax_of({"module": "builtins", "class_name": "function", "config": "eval"}),
    "Popen": softmax_of({"module": "subprocess", "class_name": "Popen", "config": {"args": "ls"}}),
    "utils.get_file": softmax_of({"module": "keras", "class_name": "utils.get_file", "config": {}}),
    "ReLU": softmax_of(
        {"module": "keras.layers", "class_name": "ReLU", "config": {}, "registered_name": "tests>Doubled"}
    ),
}


@pytest.mark.parametrize("name", HARM)
def test_code_in_a_file_is_refused_by_name_before_keras_sees_it(saved_own, tmp_path, monkeypatch, name):
    with zipfile.ZipFile(saved_own[1]) as archive:
        config = json.loads(archive.read("config.json"))
    HARM[name](config)
    path = rewritten(saved_own[1], tmp_path / "head.keras", config_json=json.dumps(config))
    monkeypatch.setattr(keras().saving, "load_model", None)
    with pytest.raises(ModelError, match=f"holds '{name}'.*code"):
        load_head(path)


def test_other_members_of_the_archive_are_refused(saved_own, tmp_path):
    path = tmp_path / "head.keras"
    path.write_bytes(saved_own[1].read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/words.txt", "")
    with pytest.raises(ModelError, match=r"assets/words\.txt"):
        load_head(path)


def test_linked_weights_of_a_keras_head_are_refused(saved_own, tmp_path):
    with zipfile.ZipFile(saved_own[1]) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content, "a") as file:
        file["layers/dense/vars/9"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "kernel")
    path = rewritten(saved_own[1], tmp_path / "head.keras", model_weights_h5=content.getvalue())
    with pytest.raises(ModelError, match="link to elsewhere"):
        load_head(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update(classes=["a", "b", "c", "d"]), r"\(n, 3\); for 4 classes"),
        (lambda state: state.update(features_shape=[2, 3, 5]), "shape"),
        (lambda state: state["parameters"].update(build_fn="print"), None),
        (lambda state: state["parameters"].update(epochs=0), "epochs"),
        (lambda state: state["fitted"].pop("from_logits_"), "from_logits_"),
    ],
)
def test_a_description_that_does_not_fit_the_model_is_refused(saved_own, tmp_path, change, message):
    with zipfile.ZipFile(saved_own[1]) as archive:
        state = json.loads(archive.read(MEMBER))
    change(state)
    path = rewritten(saved_own[1], tmp_path / "head.keras", featcache_json=json.dumps(state))
    if message is None:
        assert load_head(path).build_fn is None
    else:
        with pytest.raises(ModelError, match=message):
            load_head(path)


# Sizes that a Keras file declares


@pytest.mark.parametrize("units", [1 << 20, 1 << 31, 1 << 40])
def test_a_keras_model_with_more_weights_than_are_stored_is_never_built(
    saved_own, tmp_path, monkeypatch, units
):
    with zipfile.ZipFile(saved_own[1]) as archive:
        config = json.loads(archive.read("config.json"))
    config["config"]["layers"][-1]["config"]["units"] = units
    path = rewritten(saved_own[1], tmp_path / "head.keras", config_json=json.dumps(config))
    monkeypatch.setattr(keras().saving, "load_model", None)
    with pytest.raises(ModelError, match=f"have {5 * units + 38:,} weights, and [0-9]+ are stored"):
        load_head(path)
    # what was declared is forgotten: no later scope of Keras allocates it
    keras().layers.Dense(3)(keras().Input((4,)))


def test_a_keras_head_of_features_that_no_image_has_is_never_built(saved_own, tmp_path, monkeypatch):
    with zipfile.ZipFile(saved_own[1]) as archive:
        state = json.loads(archive.read(MEMBER))
    state["features_shape"] = [1 << 14, 1 << 14, 4]
    path = rewritten(saved_own[1], tmp_path / "head.keras", featcache_json=json.dumps(state))
    monkeypatch.setattr(keras().saving, "load_model", None)
    with pytest.raises(ModelError, match=r"features of shape \(16384, 16384, 4\) are not supported"):
        load_head(path)


def recurrent(x):
    layers = keras().layers
    return layers.Bidirectional(layers.LSTM(5, dropout=0.1))(layers.Reshape((2, 2))(x))


def attention(x):
    layers = keras().layers
    x = layers.LayerNormalization()(layers.Reshape((2, 2))(x))
    return layers.Flatten()(layers.MultiHeadAttention(2, 3, dropout=0.1)(x, x))


def convolution(x):
    layers = keras().layers
    x = layers.PReLU()(layers.Normalization(mean=0.0, variance=1.0)(layers.Reshape((2, 2, 1))(x)))
    return layers.GlobalMaxPooling2D()(layers.SpectralNormalization(layers.Conv2D(3, 1))(x))


@pytest.mark.parametrize("part", [recurrent, attention, convolution])
def test_layers_of_many_kinds_have_no_more_weights_than_are_stored(tmp_path, part):
    head = fitted(own(part))
    loaded = load_head(tmp_path / save_head(head, tmp_path))
    np.testing.assert_allclose(loaded.predict_proba(X), head.predict_proba(X), atol=1e-6)
