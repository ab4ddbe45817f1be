"""A recipe's head becomes a classifier, or a sentence that helps."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.model_selection import cross_val_score

from featcache.errors import RecipeError
from featcache.heads.dense.head import DenseHead
from featcache.heads.estimators import WANTS_SCALE, _known_types, build_head
from featcache.recipe import DEFAULT_HEADS, HeadSettings

LABELS = np.array(["cat", "dog"])[np.arange(60) % 2]
SPATIAL = np.random.default_rng(0).normal(size=(60, 2, 2, 3)).astype(np.float32)
SPATIAL += 2 * (LABELS == "dog")[:, None, None, None]


def head(**settings):
    return HeadSettings(**settings)


def test_dense_takes_its_parameters_and_pooling():
    built = build_head(head(type="dense", units=[8], dropout=0.5, pooling="avg"), random_state=3)
    assert isinstance(built, DenseHead)
    assert (built.units, built.dropout, built.pooling, built.random_state) == ([8], 0.5, "avg", 3)


@pytest.mark.parametrize("settings", DEFAULT_HEADS, ids=str)
def test_the_default_heads_can_be_built(settings):
    assert is_classifier(build_head(head(**settings)))


@pytest.mark.parametrize(
    "kind", ["LogisticRegression", "LinearSVC", "KNeighborsClassifier", "RandomForestClassifier"]
)
@pytest.mark.parametrize("pooling", ["flatten", "avg", "max"])
def test_classifiers_learn_from_spatial_features(kind, pooling):
    built = build_head(head(type=kind, pooling=pooling), random_state=0).fit(SPATIAL, LABELS)
    assert built.score(SPATIAL, LABELS) > 0.9
    assert built.classes_.tolist() == ["cat", "dog"]


def test_classifiers_take_vectors_and_half_precision():
    vectors = SPATIAL.reshape(60, -1).astype(np.float16)
    assert build_head(head(type="LogisticRegression")).fit(vectors, LABELS).score(vectors, LABELS) > 0.9


def test_heads_can_be_cloned_and_cross_validated():
    built = clone(build_head(head(type="LogisticRegression", C=0.1)))
    assert cross_val_score(built, SPATIAL, LABELS, cv=3).mean() > 0.9


@pytest.mark.parametrize(
    ("kind", "scale", "scaled"),
    [
        ("LogisticRegression", "auto", True),
        ("LogisticRegression", False, False),
        ("RandomForestClassifier", "auto", False),
        ("RandomForestClassifier", True, True),
    ],
)
def test_features_are_scaled_where_it_helps_or_as_the_recipe_says(kind, scale, scaled):
    assert ("scale" in build_head(head(type=kind, scale=scale)).named_steps) is scaled


def test_the_table_of_scaling_names_real_classifiers():
    assert set(_known_types()) >= WANTS_SCALE


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PassiveAggressiveClassifier is going away
def test_every_known_type_can_be_built():
    for kind in _known_types():
        assert is_classifier(build_head(head(type=kind))), kind


@pytest.mark.parametrize("kind", ["LogisticRegression", "SVC", "dense"])
def test_the_random_state_is_passed_on_unless_the_recipe_sets_one(kind):
    def state(built):
        return built.get_params().get("classifier__random_state", built.get_params().get("random_state"))

    assert state(build_head(head(type=kind), random_state=7)) == 7
    assert state(build_head(head(type=kind, random_state=1), random_state=7)) == 1
    assert state(build_head(head(type=kind))) is None


def test_a_classifier_without_random_state_gets_none():
    assert "random_state" not in build_head(head(type="GaussianNB"), random_state=7)[-1].get_params()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "LogisticRegresion"}, ["'LogisticRegression'", "dense", "SVC"]),
        ({"type": "Dense"}, ["Did you mean 'dense'"]),
        ({"type": "LinearRegression"}, ["nor a scikit-learn classifier", "LogisticRegression"]),
        ({"type": "VotingClassifier"}, ["consists of other estimators", "LogisticRegression"]),
        ({"type": "OneVsRestClassifier"}, ["consists of other estimators"]),
        ({"type": "SelfTrainingClassifier"}, ["consists of other estimators"]),
        (
            {"type": "LogisticRegression", "name": "mine", "max_itr": 5},
            ["'mine'", "'max_itr'", "'max_iter'", "solver"],
        ),
        ({"type": "SVC", "poolng": "avg"}, ["'SVC'", "Did you mean 'pooling'"]),
        ({"type": "LogisticRegression", "C": -1.0}, ["'C' parameter of LogisticRegression", "Got -1.0"]),
        ({"type": "dense", "unit": [3]}, ["'linear'", "'unit'", "Did you mean 'units'"]),
        ({"type": "dense", "units": [0]}, ["'units' parameter of DenseHead", "[0]"]),
        ({"type": "dense", "units": "big"}, ["'units' parameter of DenseHead", "'big'"]),
        (
            {"type": "dense", "optimizer": "adamw"},
            ["'optimizer' parameter of DenseHead", "'rmsprop'", "'adamw'"],
        ),
        ({"type": "dense", "momentum": 0.9}, ["'momentum'", "'sgd'"]),
        ({"type": "dense", "scale": True}, ["scale = True", "dense"]),
    ],
    ids=str,
)
def test_mistakes_are_explained(settings, words):
    with pytest.raises(RecipeError) as caught:
        build_head(head(**settings))
    for word in words:
        assert word in str(caught.value)


def test_only_the_needed_modules_are_imported():
    code = """
import sys
from featcache.heads.estimators import build_head
from featcache.recipe import HeadSettings
build_head(HeadSettings(type="LogisticRegression"))
print([m for m in ("tensorflow", "keras", "sklearn.ensemble", "sklearn.dummy") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
