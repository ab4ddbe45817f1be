"""What a model answers: rejected photos, sets of classes, and what cannot be asked."""

import numpy as np
import pytest

from featcache.errors import ModelError
from featcache.evaluation.conformal import ConformalSets
from featcache.evaluation.novelty import Novelty
from featcache.prediction import Answers, Asked

CLASSES = ("cat", "dog")
FAR = np.float32([[0, 0, 1]])


class Head:
    """Says "dog" where the second feature is the larger one."""

    def predict(self, X):
        return (X[:, 1] > X[:, 0]).astype(int)

    def predict_proba(self, X):
        second = np.clip(0.5 + (X[:, 1] - X[:, 0]) / 2, 0, 1)
        return np.stack([1 - second, second], axis=1)


class WithoutProbabilities:
    predict = Head.predict


def known(count=50):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], count)
    X = np.eye(2, 3)[labels] + rng.normal(0, 0.05, (2 * count, 3))
    return X.astype(np.float32), labels


def answers(head=None, **asked):
    X, y = known()
    head = head or Head()
    conformal = ConformalSets.of(head.predict_proba(X), y) if hasattr(head, "predict_proba") else None
    return Answers(CLASSES, head, Novelty.fit(X, y), conformal, Asked(**asked))


def test_novelty_is_there_without_being_asked_for():
    near, far = answers().of(["a", "b"], np.concatenate([known()[0][:1], FAR]))
    assert near.novelty > 0.1
    assert far.novelty < 0.03
    assert (far.label, far.rejected, far.set) == ("cat", None, None)


def test_a_rejected_photo_has_no_label_and_keeps_the_probabilities():
    near, far = answers(reject=0.05, set_size=0.1).of(["a", "b"], np.concatenate([known()[0][:1], FAR]))
    assert (near.label, near.rejected) == ("cat", False)
    assert (far.label, far.probability, far.rejected, far.set, far.reason) == (None, None, True, (), None)
    assert far.probabilities == {"cat": 0.5, "dog": 0.5}


def test_sets_name_the_most_probable_class_first():
    conformal = ConformalSets(np.linspace(0, 0.8, 99, dtype=np.float32))
    found = Answers(CLASSES, Head(), None, conformal, Asked(set_size=0.1)).of(
        ["a", "b"], np.float32([[0.45, 0.55, 0], [1, 0, 0]])
    )
    assert [one.set for one in found] == [("dog", "cat"), ("cat",)]


def test_a_head_without_probabilities_rejects_too():
    (far,) = answers(WithoutProbabilities(), reject=0.05).of(["a"], FAR)
    assert (far.label, far.rejected, far.probabilities) == (None, True, None)


@pytest.mark.parametrize("name", ["reject", "set_size"])
@pytest.mark.parametrize("level", [0, 1, -0.1, 5, float("nan")])
def test_levels_are_shares(name, level):
    made = answers()
    with pytest.raises(ModelError, match=f"{name} = .*between 0 and 1"):
        Asked(**{name: level}).check("one", made.novelty, made.conformal)


@pytest.mark.parametrize("name", ["reject", "set_size"])
def test_levels_that_no_photo_can_be_below_are_refused_with_the_smallest_that_works(name):
    made = answers()
    with pytest.raises(ModelError, match=r"too small for the 100 photos.*use 0\.01 or more"):
        Asked(**{name: 0.001}).check("one", made.novelty, made.conformal)
    Asked(**{name: 0.01}).check("one", made.novelty, made.conformal)


def test_what_a_model_does_not_know_is_said():
    with pytest.raises(ModelError, match=r"reject needs the novelty score.*train the head again"):
        Asked(reject=0.05).check("one", None, None)
    with pytest.raises(ModelError, match=r"set_size needs probabilities.*choose the model of another head"):
        Asked(set_size=0.1).check("one", None, None)


def test_classes_with_too_few_photos_of_their_own_are_named():
    X, y = known()
    rows = np.r_[:50, 50:60]
    made = Answers(CLASSES, Head(), Novelty.fit(X[rows], y[rows]), None, Asked(reject=0.05))
    (note,) = made.notes
    assert "1 of 2 classes have too few photos" in note
    assert note.endswith("dog")
    assert answers(reject=0.05).notes == []
