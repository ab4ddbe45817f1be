"""Sample weights and groups of Dense heads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss

from featcache.heads.dense.head import DenseHead
from featcache.heads.dense.holdout import draw_groups
from featcache.heads.dense.stack import fit_folds, fit_together

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 6)).astype(np.float32)
Y = (X[:, 0] + 0.7 * RNG.normal(size=120) > 0).astype(int)
TIMES = RNG.integers(1, 5, size=120)
VALIDATION = (X[:40], Y[:40], TIMES[:40].astype(float))
FULL_BATCH = {"optimizer": "sgd", "epochs": 5, "batch_size": 1000, "random_state": 0}


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 2.0, 1: 1.0}], ids=str)
def test_a_weight_is_so_many_rows(class_weight):
    """The loss is a mean over rows, not over weights: the learning rate makes up for that."""
    share = TIMES.sum() / len(TIMES)
    settings = FULL_BATCH | {"class_weight": class_weight, "early_stopping": False}
    weighted = DenseHead((4,), learning_rate=0.2 / share, **settings).fit(X, Y, sample_weight=TIMES)
    repeated = DenseHead((4,), learning_rate=0.2, **settings).fit(np.repeat(X, TIMES, 0), np.repeat(Y, TIMES))
    for one, other in zip(weighted.coefs_, repeated.coefs_, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert weighted.history_["loss"] == pytest.approx(np.multiply(repeated.history_["loss"], share), rel=1e-4)


def test_weights_of_1_change_nothing():
    plain, weighted = DenseHead(epochs=2, random_state=0), DenseHead(epochs=2, random_state=0)
    plain.fit(X, Y, (X[:40], Y[:40]))
    weighted.fit(X, Y, (X[:40], Y[:40], np.ones(40)), sample_weight=np.ones(120))
    np.testing.assert_allclose(weighted.coefs_[0], plain.coefs_[0], atol=1e-6)
    assert weighted.history_["val_loss"] == pytest.approx(plain.history_["val_loss"])


@pytest.mark.parametrize("sample_weight", [None, TIMES], ids=["validation only", "both"])
def test_validation_is_measured_with_its_weights(sample_weight):
    head = DenseHead(epochs=1, random_state=0).fit(X, Y, VALIDATION, sample_weight=sample_weight)
    probabilities = head.predict_proba(X[:40])
    wanted = log_loss(Y[:40], probabilities, sample_weight=TIMES[:40])
    assert head.history_["val_loss"][-1] == pytest.approx(wanted, rel=1e-4)
    accuracy = accuracy_score(Y[:40], probabilities.argmax(1), sample_weight=TIMES[:40])
    assert head.history_["val_accuracy"][-1] == pytest.approx(accuracy, rel=1e-5)


def test_heads_of_a_stack_and_of_folds_have_the_weights():
    rates, folds = (0.01, 0.1), np.arange(120) % 3
    alone = [
        DenseHead(learning_rate=r, epochs=2, random_state=0).fit(X, Y, sample_weight=TIMES) for r in rates
    ]
    together = [DenseHead(learning_rate=r, epochs=2, random_state=0) for r in rates]
    fit_together(together, X, Y, sample_weight=TIMES)
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.coefs_[0], other.coefs_[0], atol=1e-5)
    (fitted,) = fit_folds([DenseHead(epochs=1, random_state=0)], X, Y, folds, sample_weight=TIMES)
    for fold, head in enumerate(fitted):
        rows = folds == fold
        wanted = log_loss(Y[rows], head.predict_proba(X[rows]), sample_weight=TIMES[rows])
        assert head.history_["val_loss"][-1] == pytest.approx(wanted, rel=1e-4)


class OnDisk:
    """A split of a feature file with weights."""

    has_weights, shape, dtype, labels, weights = True, X.shape, X.dtype, Y, TIMES.astype(float)

    def __len__(self):
        return len(X)

    def read(self, start, stop):
        return X[start:stop]


def test_a_split_brings_its_weights():
    on_disk = DenseHead(**FULL_BATCH).fit(OnDisk(), validation_data=OnDisk())
    in_memory = DenseHead(**FULL_BATCH).fit(X, Y, (X, Y, TIMES), sample_weight=TIMES)
    np.testing.assert_allclose(on_disk.coefs_[0], in_memory.coefs_[0], atol=1e-5)
    assert on_disk.history_["val_loss"] == pytest.approx(in_memory.history_["val_loss"], rel=1e-5)


@pytest.mark.parametrize("weights", [np.ones(3), -TIMES, TIMES * np.nan, TIMES * 0], ids=str)
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="sample_weight"):
        DenseHead().fit(X, Y, sample_weight=weights)


def test_groups_of_another_length_are_refused():
    with pytest.raises(ValueError, match="groups has the shape"):
        DenseHead().fit(X, Y, groups=[1])


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=12, max_size=40),
    share=st.sampled_from([0.1, 0.2, 0.5]),
    seed=st.integers(0, 99),
)
def test_whole_groups_are_held_out_and_no_class_is_lost(sizes, share, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = groups % 3
    held = draw_groups(labels, groups, share, np.random.RandomState(seed))
    assert set(groups[held]).isdisjoint(groups[~held])
    assert set(labels[~held]) == {0, 1, 2} == set(labels[held])
    for label in range(3):
        of_class = labels == label
        assert held[of_class].sum() < share * of_class.sum() + max(sizes)


def test_where_no_group_can_be_held_out_none_is_and_that_is_said():
    labels, groups = np.array([0, 1] * 20), np.array(["a", "b"] * 20)
    assert not draw_groups(labels, groups, 0.5, np.random.RandomState(0)).any()
    X = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    with pytest.warns(UserWarning, match="of 40 photos in these groups, which are too few, none"):
        head = DenseHead(epochs=2, random_state=0).fit(X, labels, groups=groups)
    assert head.n_iter_ == 2


def test_early_stopping_holds_out_groups():
    """Rows of a group are copies: where they were divided, the held-out ones would be known by heart."""
    rows = np.repeat(np.eye(30, dtype=np.float32), 4, axis=0)
    labels, groups = np.random.default_rng(1).integers(0, 2, 30).repeat(4), np.arange(30).repeat(4)
    kind = {
        "early_stopping": True,
        "validation_fraction": 0.3,
        "epochs": 30,
        "patience": 30,
        "random_state": 0,
    }
    kept = DenseHead(learning_rate=0.1, **kind).fit(rows, labels, groups=groups, sample_weight=np.ones(120))
    divided = DenseHead(learning_rate=0.1, **kind).fit(rows, labels)
    assert divided.history_["val_accuracy"][-1] == 1
    assert kept.history_["val_accuracy"][-1] < 0.9
