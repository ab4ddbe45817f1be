"""The Dense head learns, repeats itself, and agrees with Keras."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from featcache.errors import FeatcacheError, TrainingError
from featcache.heads.dense import training
from featcache.heads.dense.feed import InMemory, Rows
from featcache.heads.dense.head import DenseHead
from featcache.heads.dense.program import compiled


def blobs(classes, n=120, seed=0):
    X, y = make_blobs(n, n_features=4, centers=classes, random_state=seed)
    return (X / X.std()).astype(np.float32), y


def spatial(n=60, seed=0):
    """Features whose every channel tells the class, (n, 3, 2, 4)."""
    y = np.arange(n) % 2
    X = np.random.default_rng(seed).normal(size=(n, 3, 2, 4)) + 2 * y[:, None, None, None]
    return X.astype(np.float32), y


FAST = {"learning_rate": 0.05, "epochs": 30, "batch_size": 16, "random_state": 0}


@parametrize_with_checks(
    [DenseHead(**FAST), DenseHead(units=(16,), **FAST)],
    # write any that comes up by name, with its reason
    expected_failed_checks=lambda head: {
        "check_sample_weight_equivalence_on_dense_data": "a row that is there twice makes other batches"
    },
)
def test_it_is_a_scikit_learn_classifier(estimator, check):
    check(estimator)


# What it learns


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_it_learns_blobs(classes, optimizer):
    X, y = blobs(classes)
    assert DenseHead(optimizer=optimizer, **FAST).fit(X, y).score(X, y) > 0.95


@pytest.mark.parametrize("activation", ["relu", "elu", "gelu", "silu", "sigmoid", "tanh"])
def test_a_hidden_layer_learns_xor(activation):
    X = np.random.default_rng(0).uniform(-1, 1, (300, 2)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    settings = {**FAST, "epochs": 60, "activation": activation}
    assert DenseHead(**settings).fit(X, y).score(X, y) < 0.75
    assert DenseHead(units=(16,), **settings).fit(X, y).score(X, y) > 0.9


def test_labels_are_strings_as_well():
    X, y = blobs(3)
    names = np.array(["cat", "dog", "eel"])[y]
    head = DenseHead(**FAST).fit(X, names)
    assert head.classes_.tolist() == ["cat", "dog", "eel"]
    assert (head.predict(X) == names).mean() > 0.95


@pytest.mark.parametrize("pooling", ["flatten", "avg", "max"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_spatial_features(pooling, dtype):
    X, y = spatial()
    head = DenseHead(pooling=pooling, **FAST).fit(X.astype(dtype), y)
    assert head.score(X.astype(dtype), y) > 0.95
    assert head.features_shape_ == (3, 2, 4)
    assert head.n_features_in_ == 24
    assert len(head.coefs_[0]) == (24 if pooling == "flatten" else 4)


def test_probabilities_are_single_precision_and_add_up():
    for classes in (2, 3):
        X, y = blobs(classes)
        probabilities = DenseHead(**FAST).fit(X, y).predict_proba(X * 1000)
        assert probabilities.dtype == np.float32
        assert probabilities.shape == (len(X), classes)
        assert np.isfinite(probabilities).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_many_rows_are_predicted_in_blocks_with_the_same_result():
    X, y = blobs(3)
    head = DenseHead(units=(8,), **FAST).fit(X, y)
    many = np.tile(X, (50, 1))
    np.testing.assert_allclose(head.predict_proba(many)[-len(X) :], head.predict_proba(X), atol=1e-6)


# What training follows


@pytest.mark.parametrize("settings", [{}, {"units": (8,), "dropout": 0.5}, {"early_stopping": True}])
def test_the_same_seed_gives_the_same_head(settings):
    X, y = blobs(3)
    one, two = (DenseHead(**FAST, **settings).fit(X, y) for _ in range(2))
    for a, b in zip(one.coefs_ + one.intercepts_, two.coefs_ + two.intercepts_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.history_ == two.history_


def test_another_seed_gives_another_head():
    X, y = blobs(2)
    one, two = (DenseHead(epochs=1, random_state=seed).fit(X, y) for seed in (0, 1))
    assert not np.array_equal(one.coefs_[0], two.coefs_[0])


def test_dropout_changes_training_and_not_prediction():
    X, y = blobs(2)
    plain, dropped = (DenseHead(dropout=rate, **FAST).fit(X, y) for rate in (0.0, 0.5))
    assert not np.array_equal(plain.coefs_[0], dropped.coefs_[0])
    np.testing.assert_array_equal(dropped.predict_proba(X), dropped.predict_proba(X))


def test_history_has_an_entry_for_every_epoch():
    X, y = blobs(2)
    head = DenseHead(epochs=4, early_stopping=False, random_state=0).fit(X, y)
    assert {key: len(values) for key, values in head.history_.items()} == {"loss": 4, "accuracy": 4}
    head.fit(X, y, validation_data=(X[:20], y[:20]))
    assert set(head.history_) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert head.n_iter_ == len(head.history_["val_loss"]) == 4
    assert all(isinstance(value, float) for values in head.history_.values() for value in values)


def test_the_last_validation_measures_are_those_of_the_head():
    X, y = blobs(3)
    head = DenseHead(units=(8,), epochs=3, random_state=0).fit(X, y, validation_data=(X[:50], y[:50]))
    chosen = head.predict_proba(X[:50])[np.arange(50), y[:50]]
    assert head.history_["val_loss"][-1] == pytest.approx(-np.log(chosen).mean(), rel=1e-5)
    assert head.history_["val_accuracy"][-1] == pytest.approx(head.score(X[:50], y[:50]))


@pytest.mark.parametrize("settings", [{}, {"units": (8,), "dropout": 0.5}, {"pca": 3}], ids=str)
@pytest.mark.parametrize("classes", [2, 3])
def test_before_training_the_first_weights_are_measured(classes, settings):
    X, y = blobs(classes)
    held_out = X[:50], y[:50]
    settings = {**settings, "epochs": 1, "random_state": 0}
    # at this rate the first weights stay what they were
    first = DenseHead(learning_rate=1e-20, optimizer="sgd", **settings).fit(X, y, validation_data=held_out)
    chosen = first.predict_proba(held_out[0])[np.arange(50), held_out[1]]
    by_hand = {"loss": -np.log(chosen).mean(), "accuracy": first.score(*held_out)}
    head = DenseHead(learning_rate=0.1, **settings).fit(X, y, validation_data=held_out)
    assert head.before_ == pytest.approx(by_hand, rel=1e-5)
    assert head.before_ != pytest.approx(
        {name: head.history_[f"val_{name}"][0] for name in by_hand}, rel=1e-3
    )


def test_measuring_the_first_weights_changes_no_training_and_needs_validation_data():
    X, y = blobs(2)
    settings = {"units": (8,), "dropout": 0.5, "early_stopping": False, **FAST}
    alone = DenseHead(**settings).fit(X, y)
    watched = DenseHead(**settings).fit(X, y, validation_data=(X[:50], y[:50]))
    assert alone.before_ is None
    for one, other in zip(alone.coefs_, watched.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)


def test_early_stopping_restores_the_best_epoch():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 30)).astype(np.float32), np.arange(40) % 2
    held_out = rng.normal(size=(40, 30)).astype(np.float32), np.arange(40) % 2  # noise: it can only get worse
    settings = {**FAST, "epochs": 100, "units": (16,)}
    head = DenseHead(early_stopping=True, patience=3, **settings).fit(X, y, validation_data=held_out)
    losses = head.history_["val_loss"]
    assert head.n_iter_ == len(losses) < 100
    assert head.best_epoch_ == int(np.argmin(losses)) + 1 == head.n_iter_ - 3
    best = DenseHead(**{**settings, "epochs": head.best_epoch_}, early_stopping=False).fit(X, y)
    for restored, trained in zip(head.coefs_, best.coefs_, strict=True):
        np.testing.assert_array_equal(restored, trained)


def test_early_stopping_holds_rows_out_by_itself():
    X, y = blobs(3)
    head = DenseHead(early_stopping=True, validation_fraction=0.2, patience=2, **FAST).fit(X, y)
    assert "val_loss" in head.history_
    assert head.score(X, y) > 0.9


def test_class_weights_help_the_rare_class():
    rng = np.random.default_rng(0)
    y = np.array(["common"] * 190 + ["rare"] * 10)
    X = (rng.normal(size=(200, 2)) + 1.2 * (y == "rare")[:, None]).astype(np.float32)

    def recall(weight):
        head = DenseHead(class_weight=weight, **FAST).fit(X, y)
        return recall_score(y, head.predict(X), pos_label="rare")

    assert recall("balanced") > recall(None) + 0.3
    assert recall({"common": 1.0, "rare": 20.0}) > recall(None) + 0.3


def test_l2_makes_weights_small_and_label_smoothing_tempers_probabilities():
    X, y = blobs(2)
    plain, penalized, smoothed = (
        DenseHead(**FAST, **more).fit(X, y) for more in ({}, {"l2": 0.1}, {"label_smoothing": 0.3})
    )
    assert np.linalg.norm(penalized.coefs_[0]) < 0.7 * np.linalg.norm(plain.coefs_[0])
    assert smoothed.predict_proba(X).max() < plain.predict_proba(X).max()


def test_it_works_in_a_grid_search():
    X, y = blobs(2)
    search = GridSearchCV(DenseHead(**FAST), {"units": [(), (4,)]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.95


def test_heads_of_all_sizes_and_stacks_of_all_heights_share_one_compiled_loop():
    plan = training.TrainingParams(binary=True, epochs=1)
    rng = np.random.default_rng(0)
    for n, d, heads in ((20, 3, 1), (33, 7, 4), (70, 5, 2)):
        y = np.arange(n, dtype=np.int32) % 2
        feed = InMemory(Rows.of(rng.normal(size=(n, d)).astype(np.float32), y))
        training.train(training.glorot_uniform(rng, [d, n, 1]), feed, feed, [plan] * heads, rng)
    loops = compiled(training.program_of([plan], 2, feed.dtype))
    assert [loop.experimental_get_tracing_count() for loop in loops] == [1, 1]


# Against Keras


@pytest.mark.parametrize("pooling", ["flatten", "avg", "max"])
@pytest.mark.parametrize("settings", [{}, {"units": (5, 3), "activation": "gelu", "dropout": 0.2}], ids=str)
def test_the_keras_model_gives_the_same_probabilities(pooling, settings):
    X, y = spatial()
    two = DenseHead(pooling=pooling, **FAST, **settings).fit(X, y)
    np.testing.assert_allclose(two.to_keras()(X).numpy(), two.predict_proba(X)[:, 1:], atol=1e-5)
    three = clone(two).fit(X, np.arange(len(X)) % 3)
    model = three.to_keras()
    assert model.input_shape == (None, 3, 2, 4)
    np.testing.assert_allclose(model(X).numpy(), three.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "elu", "gelu", "silu", "sigmoid", "tanh"])
def test_every_activation_is_that_of_keras(activation):
    X, y = blobs(2)
    head = DenseHead(units=(6,), activation=activation, **FAST).fit(X, y)
    assert head.to_keras().input_shape == (None, 4)
    np.testing.assert_allclose(head.to_keras()(X).numpy()[:, 0], head.predict_proba(X)[:, 1], atol=1e-5)


class InOrder:
    """A generator that leaves the rows in their order."""

    def permutation(self, n):
        return np.arange(n)

    def integers(self, *args, size, dtype):
        return np.zeros(size, dtype)


OPTIMIZERS = {
    "adam": ({"optimizer": "adam"}, "Adam", {}),
    "rmsprop": ({"optimizer": "rmsprop"}, "RMSprop", {}),
    "rmsprop-momentum": ({"optimizer": "rmsprop", "momentum": 0.5}, "RMSprop", {"momentum": 0.5}),
    "sgd": ({"optimizer": "sgd"}, "SGD", {}),
    "sgd-momentum": ({"optimizer": "sgd", "momentum": 0.9}, "SGD", {"momentum": 0.9}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("binary", [True, False])
def test_training_steps_are_those_of_keras(name, binary):
    """Two epochs of three batches, the last one partial, with L2, smoothing and class weights."""
    import keras

    ours, theirs, constants = OPTIMIZERS[name]
    rng = np.random.default_rng(0)
    X, outputs = rng.normal(size=(40, 6)).astype(np.float32), 1 if binary else 3
    y = rng.integers(0, 2 if binary else 3, 40).astype(np.int32)
    class_weights = (0.5, 2.0, 1.0)[: 2 if binary else 3]
    weights = np.array(class_weights, np.float32)[y]
    start = training.glorot_uniform(rng, [6, 5, outputs])
    plan = training.TrainingParams(
        binary=binary,
        learning_rate=0.01,
        l2=0.01,
        label_smoothing=0.1,
        class_weights=class_weights,
        epochs=2,
        batch_size=16,
        **ours,
    )
    (trained,) = training.train(start, InMemory(Rows.of(X, y)), None, [plan], InOrder())

    penalty = keras.regularizers.L2(0.01)
    dense = [
        keras.layers.Dense(5, "relu", kernel_regularizer=penalty),
        keras.layers.Dense(outputs, kernel_regularizer=penalty),
    ]
    model = keras.Sequential([keras.Input((6,)), *dense])
    model.set_weights(start)
    loss = keras.losses.BinaryCrossentropy if binary else keras.losses.CategoricalCrossentropy
    optimizer = getattr(keras.optimizers, theirs)(0.01, **constants)
    model.compile(optimizer, loss(from_logits=True, label_smoothing=0.1), run_eagerly=True)
    targets = y[:, None].astype(np.float32) if binary else np.eye(3, dtype=np.float32)[y]
    for _ in range(2):
        for first in range(0, 40, 16):
            part = slice(first, first + 16)
            model.train_on_batch(X[part], targets[part], sample_weight=weights[part])
    for found, expected in zip(trained.weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


# What it refuses


@pytest.mark.parametrize("learning_rate", [1e30, 1e38])
def test_a_diverging_fit_says_so(learning_rate):
    X, y = blobs(3)
    with pytest.raises(TrainingError, match=r"diverged in epoch \d+ of 30.*learning_rate"):
        DenseHead(**{**FAST, "learning_rate": learning_rate, "optimizer": "sgd"}, units=(4,)).fit(X * 1e3, y)
    assert issubclass(TrainingError, FeatcacheError)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(60, -1), (60, 3, 2, 4)])
def test_numbers_that_are_not_finite_are_refused(bad, shape):
    X, y = spatial()
    head = DenseHead(**FAST).fit(X.reshape(shape), y)
    X[3, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        DenseHead().fit(X.reshape(shape), y)
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        head.predict(X.reshape(shape))


def test_one_class_is_not_enough():
    with pytest.raises(ValueError, match="one class, 'cat'"):
        DenseHead().fit(np.zeros((3, 2)), ["cat"] * 3)


@pytest.mark.parametrize("shape", [(5, 3, 2, 5), (5, 2, 3, 4), (5, 24), (5, 3, 8)])
def test_features_of_another_shape_are_refused(shape):
    head = DenseHead(**FAST).fit(*spatial())
    with pytest.raises(ValueError, match=r"\(3, 2, 4\)|\(n, h, w, c\)"):
        head.predict(np.zeros(shape))


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ((np.zeros((2, 4)), [0, 9]), r"labels that y has not: \[9\]"),
        ((np.zeros((2, 3)), [0, 1]), "features"),
        ((np.zeros((2, 4)), [0, 1, 1]), "2 rows of features and labels of shape"),
    ],
)
def test_validation_data_must_fit(held_out, message):
    with pytest.raises(ValueError, match=message):
        DenseHead(epochs=1).fit(*blobs(2), validation_data=held_out)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("units", (0,)),
        ("units", (2.5,)),
        ("units", "8"),
        ("activation", "swish!"),
        ("dropout", 1.0),
        ("pooling", "mean"),
        ("optimizer", "adamw"),
        ("learning_rate", 0.0),
        ("momentum", 0.9),
        ("epochs", 0),
        ("batch_size", 1.5),
        ("l2", -1.0),
        ("class_weight", "even"),
    ],
)
def test_impossible_parameters_are_named(name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter of DenseHead"):
        DenseHead(**{name: value}).fit(*blobs(2))


def test_importing_does_not_import_tensorflow():
    code = """
import sys, pkgutil, importlib, featcache.heads
for module in pkgutil.iter_modules(featcache.heads.__path__):
    importlib.import_module(f"featcache.heads.{module.name}")
print([name for name in ("tensorflow", "keras") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_training_prints_nothing():
    code = """
import numpy as np
from featcache.heads.dense.head import DenseHead
DenseHead(epochs=1, early_stopping=False).fit(np.eye(4), [0, 1, 0, 1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
