"""Every row is predicted by a head that was not trained on it."""

import csv
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from featcache.errors import TrainingError
from featcache.evaluation.folds import cross_validate, draw_folds
from featcache.heads.dense.head import DenseHead


def digests_of(groups):
    return np.stack([np.frombuffer(int(group).to_bytes(32, "big"), np.uint8) for group in groups])


def problem(n=120, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6)).astype(np.float32)
    return X, (X[:, 0] + 0.5 * rng.normal(size=n) > 0).astype(np.int64)


@settings(max_examples=30, deadline=None)
@given(
    copies=st.lists(st.integers(1, 3), min_size=30, max_size=60),
    count=st.integers(2, 5),
    seed=st.integers(0, 9),
)
def test_copies_of_a_photo_are_in_one_fold_and_classes_are_spread(copies, count, seed):
    groups = np.repeat(np.arange(len(copies)), copies)
    labels = groups % 2
    folds = draw_folds(labels, digests_of(groups), count, seed, ("a", "b"))
    assert set(folds.tolist()) == set(range(count))
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in range(len(copies)))
    assert np.array_equal(folds, draw_folds(labels, digests_of(groups), count, seed, ("a", "b")))
    for fold in range(count):
        assert set(labels[folds != fold].tolist()) == {0, 1}


def test_a_class_with_too_few_different_photos_is_named():
    groups = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8])
    labels = np.array([0] * 6 + [1] * 5)
    with pytest.raises(TrainingError, match=r"class 'dog' has 3 different photos for 4 folds.*at most 3"):
        draw_folds(labels, digests_of(groups), 4, 0, ("cat", "dog"))


@pytest.mark.parametrize("head", [LogisticRegression(), KNeighborsClassifier(3)], ids=str)
def test_scikit_learns_heads_say_what_scikit_learn_says(head):
    X, y = problem()
    folds = np.arange(120) % 5
    found = cross_validate(head, X, y, folds)
    split = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(5)]
    expected = cross_val_predict(head, X, y, cv=split, method="predict_proba")
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    accuracies = [float((found.predicted[rows] == y[rows]).mean()) for _, rows in split]
    assert found.scores["folds"]["accuracy"] == pytest.approx(accuracies)
    assert found.scores["folds"]["standard_deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    assert found.scores["accuracy"] == pytest.approx(np.mean(found.predicted == y))


def test_a_dense_head_does_not_know_what_it_predicts():
    X, y = problem()
    noise = np.random.default_rng(1).integers(0, 2, 120)  # nothing to learn: only memory could be right
    X = np.concatenate([X, np.eye(120, dtype=np.float32)], axis=1)
    found = cross_validate(
        DenseHead((16,), learning_rate=0.02, epochs=30, random_state=0), X, noise, np.arange(120) % 4
    )
    assert found.scores["accuracy"] < 0.65
    learned = cross_validate(
        DenseHead(learning_rate=0.05, epochs=30, random_state=0), X[:, :6], y, np.arange(120) % 4
    )
    assert learned.scores["accuracy"] > 0.75


def test_a_head_that_diverges_on_a_fold_is_an_error():
    X, y = problem()
    with pytest.raises(TrainingError, match="diverged"):
        cross_validate(DenseHead((4,), optimizer="sgd", learning_rate=1e30), X * 1e3, y, np.arange(120) % 3)


def test_the_table_has_a_line_for_every_photo(tmp_path):
    X, y = problem(20)
    found = cross_validate(LogisticRegression(), X, y, np.arange(20) % 2)
    found.write(tmp_path / "out.csv", [f"{n}.jpg" for n in range(20)], y, ("cat", "dog"))
    lines = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [line["path"] for line in lines] == [f"{n}.jpg" for n in range(20)]
    assert [line["label"] for line in lines] == [("cat", "dog")[label] for label in y]
    for line in lines:
        assert float(line["cat"]) + float(line["dog"]) == pytest.approx(1)
        assert line["predicted"] == ("dog" if float(line["dog"]) > 0.5 else "cat")


class Counting(LogisticRegression):
    """Tells how many rows it was fitted on and asked about."""

    seen: ClassVar[list[tuple[str, int]]] = []

    def fit(self, X, y):
        self.seen.append(("fit", len(X)))
        return super().fit(X, y)

    def predict(self, X):
        self.seen.append(("predict", len(X)))
        return super().predict(X)


def test_views_are_learned_from_and_photos_are_scored():
    X, y = problem(60)
    rows = np.stack([X, X + 100.0], axis=1).reshape(-1, 6)
    folds = (np.arange(60) % 3).repeat(2)
    Counting.seen.clear()
    found = cross_validate(Counting(), rows, y.repeat(2), folds, views=2)
    assert sorted(Counting.seen) == [("fit", 80)] * 3 + [("predict", 20)] * 3
    assert (len(found.folds), len(found.predicted), found.scores["n"]) == (60, 60, 60)
    assert found.predicted.shape == (60,)
    dense = cross_validate(DenseHead(epochs=2, random_state=0), rows, y.repeat(2), folds, views=2)
    assert dense.scores["n"] == 60


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=30, max_size=50),
    count=st.integers(2, 5),
    seed=st.integers(0, 9),
)
def test_groups_stay_together(sizes, count, seed):
    groups = np.repeat(np.arange(len(sizes)) - 7, sizes)
    labels = np.abs(groups) % 2
    folds = draw_folds(labels, digests_of(np.arange(len(groups))), count, seed, ("a", "b"), groups)
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    assert set(folds.tolist()) == set(range(count))


def test_a_class_with_too_few_groups_is_named():
    labels, groups = np.array([0] * 6 + [1] * 6), np.array([*range(6), 6, 6, 6, 7, 7, 7])
    with pytest.raises(TrainingError, match=r"class 'dog' has 2 groups of photos for 3 folds.*at most 2"):
        draw_folds(labels, digests_of(np.arange(12)), 3, 0, ("cat", "dog"), groups)


@pytest.mark.parametrize(
    "head",
    [LogisticRegression(), DenseHead(epochs=3, early_stopping=False, random_state=0)],
    ids=["linear", "dense"],
)
def test_folds_are_fitted_and_scored_with_weights_and_groups(head):
    X, y = problem(60)
    folds, groups = np.arange(60) % 3, np.arange(60) % 12
    weights = np.where(np.arange(60) < 20, 5.0, 1.0)
    found = cross_validate(head, X, y, folds, weights=weights, groups=groups)
    rest = folds != 1
    alone = clone(head).fit(X[rest], y[rest], sample_weight=weights[rest])
    plain = cross_validate(head, X, y, folds).probabilities[~rest]
    wanted, found_of_fold = alone.predict_proba(X[~rest]), found.probabilities[~rest]
    # not the same: the batches of a stack of folds are other ones than those of a head alone
    assert np.abs(found_of_fold - wanted).max() < np.abs(found_of_fold - plain).max() / 3
    assert (found.scores["groups"], found.scores["weighted"]) == (12, True)
    correct = found.predicted == y
    assert found.scores["accuracy"] == pytest.approx(np.average(correct, weights=weights))
    of_fold = np.average(correct[folds == 1], weights=weights[folds == 1])
    assert found.scores["folds"]["accuracy"][1] == pytest.approx(of_fold)


def test_weights_and_groups_of_views_are_those_of_their_photo():
    X, y = problem(30)
    rows, folds = X.repeat(2, axis=0), (np.arange(30) % 3).repeat(2)
    found = cross_validate(
        KNeighborsClassifier(1), rows, y.repeat(2), folds, 2, np.arange(60) // 2 + 1.0, np.arange(60) // 6
    )
    assert (found.scores["n"], found.scores["groups"]) == (30, 10)
