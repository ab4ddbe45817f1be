"""A head as a network gives the head's own probabilities, one column for each class."""

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from featcache.errors import ModelError
from featcache.heads.calibration import calibrated
from featcache.heads.dense.head import DenseHead
from featcache.heads.estimators import build_head
from featcache.heads.keras_head import KerasHead
from featcache.heads.probabilities import check_expressible, probabilities_network
from featcache.recipe import HeadSettings
from featcache.runtime import keras

ROWS = 60


def data(classes, spatial=False):
    rng = np.random.default_rng(classes)
    labels = np.arange(ROWS) % classes
    features = rng.standard_normal((ROWS, 2, 2, 5) if spatial else (ROWS, 5)).astype(np.float32)
    return features + labels.reshape(-1, *[1] * (features.ndim - 1)), labels


def network_says(head, X):
    network = probabilities_network(head, X.shape[1:])
    return np.asarray(network(X, training=False))


def scikit(kind, **parameters):
    return build_head(HeadSettings(type=kind, **parameters), random_state=0)


def own(units, activation):
    def build(shape, classes):
        layers = [keras().layers.Flatten(), keras().layers.Dense(units or classes, activation)]
        model = keras().Sequential([keras().Input(shape), *layers])
        logits = activation is None
        loss = (
            keras().losses.BinaryCrossentropy if units == 1 else keras().losses.SparseCategoricalCrossentropy
        )
        model.compile("adam", loss(from_logits=logits))
        return model

    return build


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: DenseHead(units=(4,), dropout=0.5, epochs=2, pooling="avg", random_state=0),
        lambda: scikit("LogisticRegression", pooling="max"),
        lambda: scikit("LinearDiscriminantAnalysis"),
        lambda: scikit("SGDClassifier", loss="log_loss"),
    ],
    ids=["dense", "logistic", "lda", "sgd"],
)
def test_heads_of_the_house(make, classes, spatial):
    X, y = data(classes, spatial)
    head = make().fit(X, y)
    assert network_says(head, X) == pytest.approx(head.predict_proba(X), abs=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("activation", ["right", None], ids=["probabilities", "logits"])
@pytest.mark.parametrize("single", [True, False])
def test_a_keras_head_of_any_ending(classes, activation, single):
    if single and classes > 2:
        pytest.skip("one unit is for two classes")
    X, y = data(classes)
    named = activation and ("sigmoid" if single else "softmax")
    head = KerasHead(own(1 if single else None, named), epochs=1, random_state=0).fit(X, y)
    assert network_says(head, X) == pytest.approx(head.predict_proba(X), abs=1e-6)


def test_a_calibrated_head_without_probabilities_of_its_own():
    X, y = data(3)
    y[:9] = (y[:9] + 1) % 3  # nothing can be calibrated that is always right
    head = calibrated(scikit("LinearSVC").fit(X, y), X, y)
    assert network_says(head, X) == pytest.approx(head.predict_proba(X), abs=1e-4)


def test_small_probabilities_stay_what_they_are():
    X, y = data(2)
    head = DenseHead(epochs=1, random_state=0).fit(X, y)
    head.coefs_ = [head.coefs_[0] * 0 + 10]
    said, expected = network_says(head, X), head.predict_proba(X)
    assert 0 < expected.min() < 1e-12
    assert said == pytest.approx(expected, rel=1e-3)


def test_one_against_the_rest_when_nobody_wants_a_row():
    X, y = data(3)
    head = scikit("SGDClassifier", loss="log_loss", scale=False).fit(X, y)
    classifier = dict(head.steps)["classifier"]
    assert isinstance(classifier, SGDClassifier)
    classifier.intercept_ = np.array([-300.0, -301.0, -302.0])
    classifier.coef_ = classifier.coef_ * 0
    said = network_says(head, X)
    assert said.sum(axis=1) == pytest.approx(1)
    assert (said.argmax(axis=1) == 0).all()


@pytest.mark.parametrize(
    ("kind", "reason"), [("KNeighborsClassifier", "cannot be a dense layer"), ("LinearSVC", "calibrate")]
)
def test_what_is_no_layer_is_refused_with_the_reason(kind, reason):
    X, y = data(2)
    with pytest.raises(ModelError, match=reason):
        check_expressible(scikit(kind).fit(X, y))
