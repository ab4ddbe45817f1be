"""Heads that are trained together come out as if each was trained alone."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from featcache.errors import TrainingError
from featcache.heads.dense import training
from featcache.heads.dense.head import DenseHead
from featcache.heads.dense.stack import fit_folds, fit_together

RNG = np.random.default_rng(0)


def problem(n=240, d=12, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32)
    scores = X[:, :classes] + 0.5 * rng.normal(size=(n, classes))
    return X, scores.argmax(1)


X, Y = problem()
TRAIN, HELD = (X[:180], Y[:180]), (X[180:], Y[180:])
BASE = {"epochs": 5, "batch_size": 32, "random_state": 3}


def same(one, other, atol=1e-4):
    np.testing.assert_allclose(one.predict_proba(HELD[0]), other.predict_proba(HELD[0]), atol=atol)
    assert one.history_.keys() == other.history_.keys()
    for key in one.history_:
        np.testing.assert_allclose(one.history_[key], other.history_[key], atol=atol)
    assert one.before_ == pytest.approx(other.before_, abs=atol)
    assert (one.best_epoch_, one.n_iter_) == (other.best_epoch_, other.n_iter_)


OWN = st.fixed_dictionaries(
    {
        "learning_rate": st.sampled_from([1e-4, 1e-3, 1e-2, 0.1]),
        "dropout": st.sampled_from([0.0, 0.2, 0.5, 0.8]),
        "l2": st.sampled_from([0.0, 1e-4, 1e-2]),
        "label_smoothing": st.sampled_from([0.0, 0.1]),
        "class_weight": st.sampled_from([None, "balanced", {0: 3.0, 1: 1.0}]),
        "early_stopping": st.booleans(),
        "patience": st.integers(1, 2),
    }
)


@pytest.mark.parametrize(
    ("units", "optimizer"), [((), "adam"), ((8,), "rmsprop"), ((6, 4), "adam"), ((), "sgd")]
)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(own=st.lists(OWN, min_size=3, max_size=6))
def test_a_head_of_a_stack_equals_the_head_alone(units, optimizer, own):
    heads = [DenseHead(units, optimizer=optimizer, **BASE, **one) for one in own]
    assert fit_together(heads, *TRAIN, HELD) == [None] * len(heads)
    for head in heads:
        same(head, clone(head).fit(*TRAIN, HELD))


def in_views(features, labels, views=3, seed=1):
    """Rows of noisy views, the plain photo first."""
    noise = np.random.default_rng(seed).normal(size=(len(features), views, features.shape[1]))
    noise[:, 0] = 0
    rows = features[:, None] + 0.3 * noise.astype(np.float32)
    return rows.reshape(-1, features.shape[1]), labels.repeat(views)


@pytest.mark.parametrize(("units", "optimizer"), [((), "adam"), ((8,), "rmsprop")])
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(own=st.lists(OWN, min_size=3, max_size=6))
def test_a_head_of_a_stack_equals_the_head_alone_on_photos_in_views(units, optimizer, own):
    rows = in_views(*TRAIN)
    heads = [DenseHead(units, optimizer=optimizer, **BASE, **one) for one in own]
    assert fit_together(heads, *rows, HELD, views=3) == [None] * len(heads)
    for head in heads:
        same(head, clone(head).fit(*rows, HELD, views=3))
    plain = clone(heads[0]).fit(*TRAIN, HELD)
    assert not np.array_equal(plain.coefs_[0], heads[0].coefs_[0])


def test_a_held_out_fold_or_share_is_of_photos_and_measured_on_plain_ones():
    rows, labels = in_views(X, Y)
    rows[1::3] = rows[2::3] = 1e3  # views that nobody should be measured on
    folds = (np.arange(len(X)) % 3).repeat(3)
    head = DenseHead(learning_rate=0.0 + 1e-9, **BASE)
    ((one, *_),) = fit_folds([head], rows, labels, folds, views=3)
    plain = X[np.arange(len(X)) % 3 == 0], Y[np.arange(len(X)) % 3 == 0]
    assert one.history_["val_accuracy"][-1] == pytest.approx(one.score(*plain))
    assert one.history_["val_loss"][-1] < 10
    stopped = DenseHead(learning_rate=1e-9, early_stopping=True, patience=9, **BASE)
    stopped.fit(rows, labels, views=3)
    assert stopped.history_["val_loss"][-1] < 10


@pytest.mark.parametrize("units", [(), (8,)], ids=str)
def test_more_classes_than_two(units):
    features, labels = problem(classes=3)
    heads = [DenseHead(units, learning_rate=rate, dropout=rate, **BASE) for rate in (0.01, 0.1, 0.3)]
    fit_together(heads, features, np.array(["a", "b", "c"])[labels])
    for head in heads:
        alone = clone(head).fit(features, np.array(["a", "b", "c"])[labels])
        np.testing.assert_allclose(head.predict_proba(features), alone.predict_proba(features), atol=1e-4)
        assert head.classes_.tolist() == ["a", "b", "c"]


def test_blocks_of_heads_give_the_same_as_one_block(monkeypatch):
    rates = [1e-3, 1e-2, 3e-2, 1e-1, 3e-3]
    whole = [DenseHead((8,), learning_rate=rate, dropout=0.3, **BASE) for rate in rates]
    fit_together(whole, *TRAIN, HELD)
    monkeypatch.setattr(training, "BLOCK_BYTES", 1)  # one head per block
    for head in whole:
        (alone,) = fit_all([clone(head)])
        same(head, alone)
    parted = fit_all([clone(head) for head in whole])
    for one, other in zip(whole, parted, strict=True):
        same(one, other)


def fit_all(heads):
    assert fit_together(heads, *TRAIN, HELD) == [None] * len(heads)
    return heads


def test_heads_that_cannot_be_one_stack_are_fitted_all_the_same():
    heads = [
        DenseHead(**BASE),
        DenseHead((4,), **BASE),
        DenseHead(**{**BASE, "random_state": 4}),
        DenseHead(optimizer="sgd", momentum=0.9, **BASE),
        DenseHead(early_stopping=True, validation_fraction=0.3, **BASE),
    ]
    assert fit_together(heads, *TRAIN) == [None] * 5
    for head in heads:
        alone = clone(head).fit(*TRAIN)
        np.testing.assert_allclose(head.predict_proba(HELD[0]), alone.predict_proba(HELD[0]), atol=1e-4)


def test_a_head_that_diverges_does_not_touch_its_neighbours():
    # squares of these overflow; a learning rate that high is none of the others' business
    heads = [DenseHead((4,), optimizer="sgd", learning_rate=rate, **BASE) for rate in (0.01, 1e30, 0.1)]
    errors = fit_together(heads, *TRAIN, HELD)
    assert isinstance(errors[1], TrainingError)
    assert "learning_rate is 1e+30" in str(errors[1])
    assert (errors[0], errors[2]) == (None, None)
    assert not hasattr(heads[1], "coefs_")
    for head in (heads[0], heads[2]):
        same(head, clone(head).fit(*TRAIN, HELD))


@pytest.mark.parametrize("units", [(), (8,)], ids=str)
def test_pruned_heads_stop_with_what_they_have_and_the_others_go_on_unchanged(units):
    rates = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]
    heads = [DenseHead(units, learning_rate=rate, dropout=rate, **{**BASE, "epochs": 6}) for rate in rates]
    seen = []

    def prune(epoch, measures):
        seen.append((epoch, sorted(measures)))
        assert all({"loss", "accuracy", "val_loss", "val_accuracy"} == set(m) for m in measures.values())
        return {1: [0, 1, 2], 3: [5, 4]}.get(epoch, [])

    fit_together(heads, *TRAIN, HELD, prune=prune)
    assert seen == [(e, [*range(6)] if e == 1 else [3, 4, 5] if e < 4 else [3]) for e in range(1, 7)]
    assert [head.n_iter_ for head in heads] == [1, 1, 1, 6, 3, 3]
    same(heads[3], clone(heads[3]).fit(*TRAIN, HELD))
    for head in heads[:3]:
        one_epoch = clone(head).set_params(epochs=1).fit(*TRAIN, HELD)
        np.testing.assert_allclose(head.predict_proba(HELD[0]), one_epoch.predict_proba(HELD[0]), atol=1e-4)


# ---- folds -----------------------------------------------------------------------------------------------


def test_a_fold_is_not_trained_on():
    folds = np.arange(180) % 4
    # rows of fold 2 get labels turned round: whoever trains on them learns less
    head = DenseHead(learning_rate=0.1, epochs=20, early_stopping=False, random_state=0)
    ((clones),) = fit_folds([head], *TRAIN, folds)
    assert len(clones) == 4
    poisoned = TRAIN[1].copy()
    poisoned[folds == 2] = 1 - poisoned[folds == 2]
    ((after),) = fit_folds([head], TRAIN[0], poisoned, folds)
    np.testing.assert_allclose(clones[2].coefs_[0], after[2].coefs_[0], atol=1e-5)
    assert np.abs(clones[1].coefs_[0] - after[1].coefs_[0]).max() > 0.05
    held_out = folds == 2
    assert clones[2].history_["val_accuracy"][-1] == pytest.approx(
        clones[2].score(TRAIN[0][held_out], TRAIN[1][held_out])
    )
    one_that_never_learns = DenseHead(learning_rate=1e-20, optimizer="sgd", epochs=1, random_state=0)
    first = one_that_never_learns.fit(*TRAIN, (TRAIN[0][held_out], TRAIN[1][held_out]))
    assert clones[2].before_ == pytest.approx(first.before_, rel=1e-5)


def test_heads_times_folds_are_members_of_one_stack():
    folds = np.arange(180) % 3
    heads = [DenseHead((6,), learning_rate=rate, class_weight="balanced", **BASE) for rate in (0.01, 0.1)]
    found = fit_folds(heads, *TRAIN, folds)
    assert [[c.learning_rate for c in clones] for clones in found] == [[0.01] * 3, [0.1] * 3]
    for head, clones in zip(heads, found, strict=True):
        assert not hasattr(head, "coefs_")
        for one, other in zip(clones, fit_folds([head], *TRAIN, folds)[0], strict=True):
            np.testing.assert_allclose(one.coefs_[0], other.coefs_[0], atol=1e-4)


# ---- principal components --------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"units": (8,)}, {"dropout": 0.3}], ids=str)
def test_principal_components_become_part_of_the_first_layer(settings):
    from sklearn.decomposition import PCA

    head = DenseHead(pca=5, **BASE, **settings).fit(*TRAIN, HELD)
    components = PCA(5, random_state=0).fit(TRAIN[0])
    projected = tuple((components.transform(features), labels) for features, labels in (TRAIN, HELD))
    by_hand = DenseHead(**BASE, **settings).fit(*projected[0], projected[1])
    assert head.coefs_[0].shape[0] == 12
    np.testing.assert_allclose(head.predict_proba(HELD[0]), by_hand.predict_proba(projected[1][0]), atol=1e-4)
    model = head.to_keras()
    assert model.input_shape == (None, 12)
    np.testing.assert_allclose(model(HELD[0]).numpy()[:, 0], head.predict_proba(HELD[0])[:, 1], atol=1e-5)


def test_principal_components_are_found_once_for_all_heads_that_ask(monkeypatch):
    import sklearn.decomposition

    fitted = []

    class Counted(sklearn.decomposition.PCA):
        def fit(self, *args):
            fitted.append(self.n_components)
            return super().fit(*args)

    monkeypatch.setattr(sklearn.decomposition, "PCA", Counted)
    heads = [DenseHead(units, pca=n, **BASE) for n in (3, 5) for units in ((), (4,), (8,))]
    fit_together(heads, *TRAIN, HELD)
    assert sorted(fitted) == [3, 5]


def test_more_components_than_there_are_is_that_heads_error_alone():
    heads = [DenseHead(pca=13, **BASE), DenseHead(pca=12, **BASE)]
    errors = fit_together(heads, *TRAIN)
    assert "take at most 12" in str(errors[0])
    assert errors[1] is None
    with pytest.raises(TrainingError, match="pca = 13"):
        DenseHead(pca=13, **BASE).fit(*TRAIN)
