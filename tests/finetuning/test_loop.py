"""The loop that trains a network's top with its head, without anything around it."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from featcache.errors import TrainingError
from featcache.finetuning.loop import FinetuneParams, train_top
from featcache.finetuning.top import Top
from featcache.heads.dense.feed import InMemory, Rows
from featcache.heads.dense.head import DenseHead
from featcache.runtime import keras

RNG = np.random.default_rng(0)
Y = (np.arange(96) % 2).astype(np.int32)
X = (RNG.standard_normal((96, 4, 4, 8)) + Y[:, None, None, None]).astype(np.float32)


def small_top(precision="f32", classes=2):
    module = keras()
    module.utils.set_random_seed(0)
    inputs = module.Input((4, 4, 8))
    inner = module.layers.Conv2D(16, 3, padding="same", name="conv")(inputs)
    inner = module.layers.BatchNormalization(name="norm")(inner)
    outputs = module.layers.ReLU(name="relu")(inner + inner)
    upper = module.Model(inputs, outputs)
    vectors = np.abs(RNG.standard_normal((64, 16))).astype(np.float32)
    head = DenseHead(epochs=1, random_state=0).fit(vectors, np.arange(64) % classes)
    return Top(upper, "avg", head, precision=precision)


def tuned(folder, top, labels=Y, weights=None, **more):
    feed = InMemory(Rows.of(X.reshape(len(X), -1), labels, weights=weights))
    feeds = {"train": feed, "validation": feed}
    return train_top(top, feeds, FinetuneParams("adam", 1e-3, epochs=4, batch_size=16), folder, **more)


def test_bf16_products_learn_what_f32_ones_learn_and_leave_f32_weights(tmp_path):
    tops = {precision: small_top(precision) for precision in ("f32", "bf16")}
    losses = {name: tuned(tmp_path / name, top).per_epoch["loss"] for name, top in tops.items()}
    assert losses["bf16"] == pytest.approx(losses["f32"], rel=0.05)
    assert losses["bf16"] != pytest.approx(losses["f32"], rel=1e-6)
    heads = {name: top.classifier({"loss": losses[name]}) for name, top in tops.items()}
    assert {weight.dtype for weight in heads["bf16"].model_.get_weights()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(heads["bf16"].predict_proba(X), heads["f32"].predict_proba(X), atol=0.05)


def test_a_bf16_model_is_the_one_that_was_trained(tmp_path):
    top = small_top("bf16")
    before = top.classifier({"loss": []}).predict_proba(X)
    history = tuned(tmp_path, top).per_epoch
    after = top.classifier(history)
    assert np.abs(after.predict_proba(X) - before).max() > 0.01
    assert np.mean(after.predict(X) == Y) == pytest.approx(max(history["val_accuracy"]), abs=0.05)


@pytest.mark.parametrize("classes", [2, 3])
def test_another_metric_is_measured_as_scikit_learn_does_and_decides(tmp_path, classes):
    labels = (np.arange(96) % classes).astype(np.int32)
    top = small_top(classes=classes)
    first = top.classifier({"loss": []}).predict(X)
    history = tuned(tmp_path, top, labels, metric="macro_f1")
    assert history.before["macro_f1"] == pytest.approx(f1_score(labels, first, average="macro"))
    measured = history.per_epoch["val_macro_f1"]
    assert len(measured) == 4
    assert measured[history.best_epoch - 1] == max(measured)
    last = top.classifier(history.per_epoch).predict(X)
    assert f1_score(labels, last, average="macro") == pytest.approx(max(measured))


def test_a_metric_that_validation_does_not_define_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"selection\.metric = 'roc_auc' is not defined"):
        tuned(tmp_path, small_top(), np.zeros(96, np.int32), metric="roc_auc")


def test_photos_of_weight_0_are_as_good_as_absent(tmp_path):
    wrong, weights = Y.copy(), np.ones(len(Y))
    wrong[::8], weights[::8] = 1 - Y[::8], 0.0
    measured = [tuned(tmp_path / str(n), small_top(), labels, weights) for n, labels in enumerate((Y, wrong))]
    for name, values in measured[0].per_epoch.items():
        assert measured[1].per_epoch[name] == pytest.approx(values, rel=1e-3), name
    unweighted = tuned(tmp_path / "unweighted", small_top(), wrong)
    assert unweighted.per_epoch["val_accuracy"] != measured[1].per_epoch["val_accuracy"]
