"""A linear head says the same without scikit-learn; what is not linear is refused with the reason."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer

from featcache.errors import ModelError
from featcache.heads.calibration import calibrated
from featcache.heads.estimators import build_head
from featcache.heads.linear import LINEAR, LINEAR_FILE, linear_form, load_linear
from featcache.heads.persistence import load_head, save_head
from featcache.heads.pooling import Pool
from featcache.recipe import HeadSettings

KINDS = {
    **{kind: {"type": kind} for kind in LINEAR},
    "scaled": {"type": "LogisticRegression", "C": 0.1},
    "unscaled": {"type": "LogisticRegression", "scale": False, "max_iter": 5000},
    "components": {"type": "LogisticRegression", "pca": 8},
    "components, scaled": {"type": "RidgeClassifier", "pca": 8, "scale": True},
    "log loss": {"type": "SGDClassifier", "loss": "log_loss"},
}


def data(classes):
    X, y = make_classification(600, 24, n_informative=12, n_classes=classes, random_state=0)
    return (X * np.linspace(0.1, 30, 24) + 5).astype(np.float32).reshape(600, 2, 3, 4), y


def fitted(classes=2, pooling="flatten", **settings):
    X, y = data(classes)
    return build_head(HeadSettings(pooling=pooling, **settings), 0).fit(X[:400], y[:400])


def assert_same(form, head, X):
    np.testing.assert_array_equal(form.predict(X), head.predict(X))
    assert hasattr(form, "predict_proba") == hasattr(head, "predict_proba")
    if hasattr(head, "predict_proba"):
        np.testing.assert_allclose(form.predict_proba(X), head.predict_proba(X), atol=1e-5)
    else:
        np.testing.assert_allclose(form.decision_function(X), head.decision_function(X), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_it_says_what_the_head_says(settings, classes):
    X, _ = data(classes)
    head = fitted(classes, **settings)
    assert_same(linear_form(head), head, X)


@pytest.mark.parametrize("pooling", ["flatten", "avg", "max"])
def test_features_of_any_shape_are_pooled_as_the_head_does(pooling):
    X, _ = data(2)
    head = fitted(2, pooling, type="LogisticRegression")
    assert_same(linear_form(head), head, X)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("kind", ["LogisticRegression", "LinearSVC"])
def test_calibration_is_part_of_it(kind, classes):
    X, y = data(classes)
    head = calibrated(fitted(classes, type=kind), X[400:], y[400:])
    assert_same(linear_form(head), head, X)


def test_tiny_and_huge_values_neither_overflow_nor_vanish():
    form = linear_form(fitted(2, type="LogisticRegression"))
    with np.errstate(all="raise", under="ignore"):
        probabilities = form.predict_proba(np.array([[-1e6] * 24, [1e6] * 24]))
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("kind", ["RandomForestClassifier", "SVC", "KNeighborsClassifier", "MLPClassifier"])
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_linear_is_refused_by_name(kind):
    with pytest.raises(ModelError, match=f"{kind} does not decide by one product"):
        linear_form(fitted(2, type=kind))


def test_a_classifier_by_itself_is_one_too(tmp_path):
    X, y = data(2)
    rows = X.reshape(len(X), -1)
    head = LogisticRegression(max_iter=5000).fit(rows, y)
    assert_same(load_linear(tmp_path / save_head(head, tmp_path)), head, rows)


def test_a_step_that_is_not_known_is_refused_and_the_head_kept_without(tmp_path):
    X, y = data(2)
    steps = [("pool", Pool()), ("length", Normalizer()), ("classifier", LogisticRegression())]
    head = Pipeline(steps).fit(X, y)
    with pytest.raises(ModelError, match="'length', a Normalizer"):
        linear_form(head)
    path = tmp_path / save_head(head, tmp_path)
    assert load_linear(path) is None
    np.testing.assert_array_equal(load_head(path).predict(X), head.predict(X))


def test_probabilities_of_another_kind_are_refused():
    head = fitted(2, type="SGDClassifier", loss="modified_huber")
    with pytest.raises(ModelError, match="not made of its decision values"):
        linear_form(head)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused(broken):
    X, _ = data(2)
    X[3, 0, 0, 0] = broken
    with pytest.raises(ValueError, match="NaN or infinity"):
        linear_form(fitted(2, type="LogisticRegression")).predict(X)


def test_features_of_another_width_are_refused():
    with pytest.raises(ValueError, match="24 numbers a row"):
        linear_form(fitted(2, type="LogisticRegression")).predict(np.zeros((2, 7)))


def test_it_is_kept_beside_its_head_and_belongs_to_no_other(tmp_path):
    X, _ = data(4)
    head = fitted(4, type="LogisticRegression")
    path = tmp_path / save_head(head, tmp_path)
    assert_same(load_linear(path), load_head(path), X)
    kept = (tmp_path / LINEAR_FILE).read_bytes()
    save_head(fitted(4, type="LogisticRegression", C=1e-3), tmp_path)
    (tmp_path / LINEAR_FILE).write_bytes(kept)
    assert load_linear(path) is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", b"\x93NUMPY"])
def test_a_damaged_one_is_as_none(tmp_path, content):
    path = tmp_path / save_head(fitted(2, type="LogisticRegression"), tmp_path)
    (tmp_path / LINEAR_FILE).write_bytes(content)
    assert load_linear(path) is None


def test_a_head_that_is_not_linear_leaves_none_of_the_head_before(tmp_path):
    save_head(fitted(2, type="LogisticRegression"), tmp_path)
    path = tmp_path / save_head(fitted(2, type="DecisionTreeClassifier"), tmp_path)
    assert load_linear(path) is None


def test_it_needs_neither_scikit_learn_nor_scipy(tmp_path):
    path = tmp_path / save_head(fitted(2, type="LogisticRegression"), tmp_path)
    program = (
        "import sys, pathlib\n"
        "from featcache.heads.linear import load_linear\n"
        f"load_linear(pathlib.Path({str(path)!r})).predict_proba([[0.0] * 24])\n"
        "print({'sklearn', 'scipy', 'skops', 'tensorflow'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
