"""A user's own Keras model learns, repeats itself, says what Keras says, or is refused with a reason."""

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import featcache as fc
from featcache.errors import RecipeError, TrainingError
from featcache.heads import keras_head
from featcache.heads.keras_head import KerasHead
from featcache.runtime import keras, tensorflow

NAMES = np.array(["cat", "dog", "eel"])
FAST = {"epochs": 5, "batch_size": 30, "random_state": 0}


def rows(classes, shape=(4,), n=60, seed=0):
    """Features whose every number leans to one side for the class, and string labels."""
    numbers = np.arange(n) % classes
    noise = np.random.default_rng(seed).normal(size=(n, *shape))
    lean = (numbers - (classes - 1) / 2).reshape(-1, *[1] * len(shape))
    return (noise + 2 * lean).astype(np.float32), NAMES[numbers]


def plain(units, *ends):
    """Return a build_fn of a Dense layer; `ends` are its activation and the names of more layers."""

    def build(features_shape, classes):
        layers = keras().layers
        more = [getattr(layers, name)() for name in ends[1:]]
        start = [keras().Input(features_shape), layers.Flatten()]
        return keras().Sequential([*start, layers.Dense(units, *ends[:1]), *more])

    return build


def compiled(build, loss, learning_rate=0.5, **arguments):
    """Return a build_fn whose model is compiled, not to be traced: that is faster for so few steps.

    `loss` is what Keras takes, or a pair of a class of keras.losses and its arguments.
    """

    def build_compiled(features_shape, classes):
        model = build(features_shape, classes)
        made = getattr(keras().losses, loss[0])(**loss[1]) if isinstance(loss, tuple) else loss
        model.compile(keras().optimizers.SGD(learning_rate), made, run_eagerly=True, **arguments)
        return model

    return build_compiled


SIGMOID = compiled(plain(1, "sigmoid"), "binary_crossentropy", metrics=["accuracy"])
SOFTMAX = compiled(plain(3, "softmax"), "sparse_categorical_crossentropy", metrics=["accuracy"])


@pytest.fixture
def eager():
    """Run what the head itself compiles without tracing, too."""
    tensorflow().config.run_functions_eagerly(True)
    yield
    tensorflow().config.run_functions_eagerly(False)


# With scikit-learn


def for_any_classes(features_shape, classes):
    """A build_fn that pickle can name; some checks have features in the hundreds and tiny class weights."""
    layers = keras().layers
    scaled = [keras().Input(features_shape), layers.BatchNormalization(momentum=0.5)]
    model = keras().Sequential([*scaled, layers.Dense(classes, "softmax")])
    model.compile(keras().optimizers.Adam(0.3), "sparse_categorical_crossentropy", run_eagerly=True)
    return model


CHECKED = KerasHead(for_any_classes, epochs=8, random_state=0)
ROUNDS = {
    "check_methods_sample_order_invariance": "asks for 1e-9, but what TensorFlow computes for a row "
    "may differ in the last float32 digit with its place in the block"
}
QUICK = {
    "check_classifiers_one_label",
    "check_dict_unchanged",
    "check_dont_overwrite_attributes",
    "check_estimators_nan_inf",
    "check_estimators_pickle",
    "check_fit1d",
    "check_get_params_invariance",
    "check_n_features_in_after_fitting",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
}


@pytest.mark.parametrize(
    "check",
    [check for _, check in estimator_checks_generator(CHECKED) if check.func.__name__ in QUICK],
    ids=lambda check: check.func.__name__,
)
def test_it_keeps_scikit_learns_rules(check):
    check(clone(CHECKED).set_params(epochs=1))


@pytest.mark.slow
@parametrize_with_checks([CHECKED], expected_failed_checks=lambda head: ROUNDS)
def test_it_is_a_scikit_learn_classifier(estimator, check):
    check(estimator)


def test_clones_and_cross_validation():
    head = KerasHead(SIGMOID, callbacks=[], **FAST)
    copy = clone(head).set_params(batch_size=10)
    assert copy.get_params() == {**head.get_params(), "batch_size": 10}
    assert cross_val_score(copy, *rows(2, n=40), cv=2).min() > 0.8


# What it learns


@pytest.mark.parametrize(("shape", "dtype"), [((4,), np.float32), ((2, 2, 3), np.float16)], ids=str)
def test_two_classes_with_names(shape, dtype):
    X, y = rows(2, shape)
    X = X.astype(dtype)
    head = fc.KerasHead(SIGMOID, **FAST).fit(X, y)
    assert head.score(X, y) > 0.9
    assert head.classes_.tolist() == ["cat", "dog"]
    assert (head.features_shape_, head.n_features_in_) == (shape, np.prod(shape))
    probabilities = head.predict_proba(X)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities[:, 1], head.to_keras()(X).numpy()[:, 0], atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(head.predict(X) == "dog", probabilities[:, 1] > 0.5)


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings("ignore:Even though the .tf.config:UserWarning")
@pytest.mark.parametrize(
    ("classes", "end"),
    [(2, (1, "sigmoid")), (2, (1,)), (2, (2, "softmax")), (3, (3, "softmax")), (3, (3,))],
    ids=str,
)
def test_what_is_not_compiled_is_compiled_to_fit(classes, end):
    """What Keras measured on held-out rows is what predict and predict_proba say."""
    held_out = X, y = rows(classes, n=40, seed=1)
    head = KerasHead(plain(*end), epochs=1, random_state=0).fit(*rows(classes), validation_data=held_out)
    assert head.from_logits_ == (len(end) == 1)
    assert head.history_["val_accuracy"][-1] == pytest.approx(head.score(X, y), abs=1e-6)
    chosen = head.predict_proba(X)[np.arange(len(y)), np.searchsorted(head.classes_, y)]
    assert head.history_["val_loss"][-1] == pytest.approx(-np.log(chosen).mean(), rel=1e-4)
    decision = head.decision_function(X)
    decided = decision > 0 if classes == 2 else decision.argmax(axis=1)
    np.testing.assert_array_equal(head.classes_[decided.astype(int)], head.predict(X))


def test_the_metrics_of_a_compiled_model_are_those_of_predict():
    held_out = rows(3, n=40, seed=1)
    head = KerasHead(SOFTMAX, **FAST).fit(*rows(3), validation_data=held_out)
    assert set(head.history_) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert {len(values) for values in head.history_.values()} == {head.n_iter_} == {5}
    assert head.history_["val_accuracy"][-1] == pytest.approx(head.score(*held_out), abs=1e-6)
    assert head.score(*held_out) > 0.6


LOSSES = {
    "one-hot": (3, (3, "softmax"), "categorical_crossentropy"),
    "one-hot, focal": (3, (3,), ("CategoricalFocalCrossentropy", {"from_logits": True})),
    "binary, focal": (2, (1,), ("BinaryFocalCrossentropy", {"from_logits": True})),
    "Keras's choice": (2, (1, "sigmoid"), "crossentropy"),
    "own": (3, (3, "softmax"), lambda true, given: keras().ops.mean((true - given) ** 2, axis=-1)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_other_losses_get_the_labels_that_they_want(name):
    classes, end, loss = LOSSES[name]
    X, y = rows(classes)
    build = compiled(plain(*end), loss, 2.0)
    assert KerasHead(build, **{**FAST, "epochs": 3}).fit(X, y).score(X, y) > 0.7


@pytest.mark.parametrize("heavy", ["cat", "dog"])
def test_class_weights_count(heavy):
    """Features that tell nothing leave the choice to the weights."""
    X, y = np.zeros((60, 4), np.float32), rows(2)[1]
    weights = {"cat": 1.0, "dog": 1.0, heavy: 10.0}
    assert set(KerasHead(SIGMOID, class_weight=weights, **FAST).fit(X, y).predict(X)) == {heavy}


# What it repeats


def test_the_same_number_gives_the_same_head_and_nothing_else_notices():
    def build(features_shape, classes):
        layers = keras().layers
        return keras().Sequential([layers.Dropout(0.5), layers.Dense(8, "relu"), layers.Dense(1, "sigmoid")])

    def weights(seed):
        head = KerasHead(compiled(build, "binary_crossentropy"), epochs=2, random_state=seed).fit(*rows(2))
        return np.concatenate([weight.ravel() for weight in head.to_keras().get_weights()])

    random.seed(5)
    np.random.seed(5)
    expected = random.random(), np.random.rand()
    random.seed(5)
    np.random.seed(5)
    first = weights(1)
    assert (random.random(), np.random.rand()) == expected
    np.testing.assert_array_equal(weights(1), first)
    assert not np.array_equal(weights(2), first)


def test_predictions_are_in_inference_mode():
    def build(features_shape, classes):
        layers = keras().layers
        return keras().Sequential(
            [layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(1, "sigmoid")]
        )

    X, y = rows(2)
    head = KerasHead(compiled(build, "binary_crossentropy"), **FAST).fit(X, y)
    probabilities = head.predict_proba(X)
    np.testing.assert_array_equal(head.predict_proba(X), probabilities)
    # batch statistics would make a single row all zeros
    np.testing.assert_allclose(head.predict_proba(X[:1]), probabilities[:1], atol=1e-6)


def test_blocks_make_no_difference(monkeypatch):
    X, y = rows(3)
    head = KerasHead(SOFTMAX, epochs=1).fit(X, y)
    whole = head.predict_proba(X)
    monkeypatch.setattr(keras_head, "BLOCK_ROWS", 7)
    np.testing.assert_allclose(head.predict_proba(X), whole, atol=1e-6)


def test_training_and_predicting_are_silent(capfd):
    KerasHead(plain(1), epochs=1, random_state=0).fit(*rows(2)).predict(rows(2)[0])
    assert capfd.readouterr() == ("", "")


# Callbacks


def test_early_stopping_restores_the_best_epoch_also_when_used_again():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 20)).astype(np.float32), np.arange(30) % 2
    held_out = rng.normal(size=(30, 20)).astype(np.float32), np.arange(30) % 2  # noise: it can only get worse
    stop = keras().callbacks.EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=True)
    head = KerasHead(SIGMOID, callbacks=[stop], epochs=40, batch_size=10, random_state=0)
    for _ in range(2):
        losses = head.fit(X, y, validation_data=held_out).history_["val_loss"]
        assert head.n_iter_ == len(losses) == int(np.argmin(losses)) + 3 < 40
        chosen = head.predict_proba(held_out[0])[np.arange(30), held_out[1]]
        assert -np.log(chosen).mean() == pytest.approx(min(losses), rel=1e-4)


def test_callbacks_can_be_made_anew_for_every_fit():
    made = []

    def make():
        made.append(keras().callbacks.LambdaCallback(on_train_begin=lambda logs: made.append("begun")))
        return made[-1:]

    head = KerasHead(SIGMOID, callbacks=make, epochs=1)
    head.fit(*rows(2)).fit(*rows(2))
    assert made[1::2] == ["begun", "begun"]
    assert made[0] is not made[2]


@pytest.mark.parametrize(
    "bad", [["EarlyStopping"], lambda: None, [None]], ids=["name", "gives none", "holds none"]
)
def test_what_is_no_callback_is_refused(bad):
    with pytest.raises(RecipeError, match=r"callbacks.*list of keras\.callbacks\.Callback"):
        KerasHead(SIGMOID, callbacks=bad).fit(*rows(2))


# How a model's end is read


def ends(*layers):
    """Return a build_fn that makes a functional model of a Dense layer without activation and `layers`."""

    def build(features_shape, classes):
        features = x = keras().Input(features_shape)
        x = keras().layers.Dense(3)(x)
        for layer in layers:
            x = layer()(x)
        return keras().Model(features, x)

    return build


@pytest.mark.parametrize(
    ("build", "from_logits"),
    [
        (ends(lambda: keras().layers.Softmax()), False),
        (ends(lambda: keras().layers.Activation("softmax"), lambda: keras().layers.Flatten()), False),
        (ends(lambda: keras().ops.softmax), False),
        (ends(lambda: plain(3, "softmax")((3,), 3)), False),
        (ends(lambda: keras().layers.Softmax(), lambda: keras().layers.Activation("linear")), False),
        (ends(lambda: keras().layers.Reshape((3,))), True),
        (
            compiled(
                ends(lambda: keras().layers.Rescaling(0.5)),
                ("SparseCategoricalCrossentropy", {"from_logits": True}),
            ),
            True,
        ),
    ],
    ids=[
        "layer",
        "activation",
        "operation",
        "model in a model",
        "linear after it",
        "reshaped",
        "loss says it",
    ],
)
def test_logits_and_probabilities_are_told_apart(build, from_logits):
    assert keras_head._network(build, (4,), 3).from_logits == from_logits


# What it refuses

LOGITS, NO_LOGITS = {"from_logits": True}, {"from_logits": False}


@pytest.mark.parametrize(
    ("classes", "build", "message"),
    [
        (2, lambda shape, classes: None, "returned None; it has to return a keras.Model"),
        (3, plain(1, "sigmoid"), r"output has shape \(n, 1\); for 3 classes it has to be \(n, 3\)"),
        (2, plain(3, "softmax"), r"for 2 classes it has to be \(n, 1\) or \(n, 2\)"),
        (2, lambda shape, classes: plain(1)((9,), classes), r"features of shape \(4,\)"),
        (2, plain(1, "tanh"), "'tanh'; end it in 'sigmoid', or without activation"),
        (3, plain(3, "sigmoid"), "'sigmoid'; end it in 'softmax', or without activation"),
        (3, ends(lambda: keras().layers.Rescaling(2.0)), "does not show whether"),
        (2, compiled(plain(1, "sigmoid"), "mse"), "loss 'mse'; take keras.losses.BinaryCrossentropy"),
        (2, compiled(plain(1), ("Huber", {})), "with the loss 'huber_loss'"),
        (3, compiled(plain(3, "softmax"), "binary_crossentropy"), "take keras.losses.SparseCategoricalCros"),
        (2, compiled(plain(1, "sigmoid"), "sparse_categorical_crossentropy"), "BinaryCrossentropy"),
        (2, compiled(plain(1, "sigmoid"), None), "loss None"),
        (2, compiled(plain(1), "binary_crossentropy"), "from_logits=False; it takes from_logits=True"),
        (
            2,
            compiled(plain(1, "sigmoid"), ("BinaryCrossentropy", LOGITS)),
            "'sigmoid', but its loss has from_logits=True; it takes from_logits=False",
        ),
        (3, compiled(plain(3), ("CategoricalCrossentropy", NO_LOGITS)), "it takes from_logits=True"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(classes, build, message):
    with pytest.raises(RecipeError, match=message):
        KerasHead(build, epochs=1).fit(*rows(classes))


def test_a_model_that_was_trained_before_is_refused():
    model = SIGMOID((4,), 2)
    KerasHead(lambda shape, classes: model, epochs=1).fit(*rows(2))
    with pytest.raises(RecipeError, match=r"trained before.*new model in every call"):
        KerasHead(lambda shape, classes: model, epochs=1).fit(*rows(2))


@pytest.mark.parametrize("epochs", [1, 5])
def test_a_diverging_fit_says_so(epochs):
    """In one step the loss is still finite: the weights tell."""
    build = compiled(plain(1), ("BinaryCrossentropy", LOGITS), learning_rate=np.inf)
    with pytest.raises(TrainingError, match=f"diverged in epoch 1 of {epochs}|epoch 2 of {epochs}"):
        KerasHead(build, epochs=epochs, batch_size=60).fit(*rows(2))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(4,), (2, 2, 3)], ids=str)
def test_numbers_that_are_not_finite_are_refused(bad, shape):
    X, y = rows(2, shape)
    X.flat[7] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        KerasHead(SIGMOID).fit(X, y)


def test_features_of_another_shape_are_refused():
    head = KerasHead(SIGMOID, epochs=1).fit(*rows(2, (2, 2, 3)))
    for shape in [(5, 2, 3, 2), (5, 12), (5, 2, 6)]:
        with pytest.raises(ValueError, match=r"\(2, 2, 3\)|\(n, h, w, c\)"):
            head.predict(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ((np.zeros((2, 4)), ["cat", "owl"]), r"labels that y has not: \['owl'\]"),
        ((np.zeros((2, 3)), ["cat", "dog"]), "features"),
        ((np.zeros((2, 4)), ["cat"]), "2 rows of features and labels of shape"),
    ],
)
def test_validation_data_must_fit(held_out, message):
    with pytest.raises(ValueError, match=message):
        KerasHead(SIGMOID, epochs=1).fit(*rows(2), validation_data=held_out)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("build_fn", "dense"),
        ("epochs", 0),
        ("batch_size", 1.5),
        ("callbacks", "stop"),
        ("class_weight", "even"),
        ("verbose", 3),
    ],
)
def test_impossible_parameters_are_named(name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter of KerasHead"):
        KerasHead(**{"build_fn": SIGMOID, name: value}).fit(*rows(2))


@given(st.floats(0, 1, width=32))
def test_the_logits_of_probabilities_are_finite_and_turn_back(probability):
    column = np.array([[probability]], np.float32)
    both = np.concatenate([1 - column, column], axis=1)
    np.testing.assert_allclose(expit(keras_head._as_logits(column)), column, atol=1e-6)
    np.testing.assert_allclose(softmax(keras_head._as_logits(both), axis=1), both, atol=1e-6)


def test_making_one_imports_no_tensorflow():
    code = "import sys, featcache as fc; fc.KerasHead(print).get_params(); print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
