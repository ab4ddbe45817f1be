"""Intervals come from resamples whose metrics are scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    roc_auc_score,
)

from featcache.evaluation import bootstrap as module
from featcache.evaluation import expected_calibration_error, intervals
from featcache.evaluation.bootstrap import METRICS, WeightedMetrics, resampled, resampled_weights
from featcache.evaluation.predictions import Predictions


def answers(n, classes, seed=0, dtype=np.float64):
    """Labels, probabilities with many ties, predictions and classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    raw = rng.integers(1, 6, size=(n, classes)) + 3 * (y[:, None] == np.arange(classes))
    probabilities = (raw / raw.sum(axis=1, keepdims=True)).astype(dtype)
    return y, probabilities, probabilities.argmax(axis=1), np.arange(classes)


def by_scikit_learn(y, probabilities, predicted, classes, weights):
    """Each metric of one resample of rows of all classes; NaN where it misses a class of the metric."""
    repeated = [np.repeat(rows, weights.astype(int), axis=0) for rows in (y, probabilities)]
    found = {
        "log_loss": log_loss(y, probabilities, labels=classes, sample_weight=weights),
        "ece": expected_calibration_error(*repeated, classes),
        "macro_f1": np.nan,
        "balanced_accuracy": np.nan,
        "roc_auc": np.nan,
        "average_precision": np.nan,
    }
    drawn = weights > 0
    if set(y[drawn]) | set(predicted[drawn]) == set(classes):
        found["macro_f1"] = f1_score(y, predicted, sample_weight=weights, average="macro")
    if set(y[drawn]) == set(classes):
        areas = [roc_auc_score(y == k, probabilities[:, k], sample_weight=weights) for k in classes]
        found["roc_auc"] = areas[1] if len(classes) == 2 else np.mean(areas)
        precisions = [
            average_precision_score(y == k, probabilities[:, k], sample_weight=weights) for k in classes
        ]
        found["average_precision"] = precisions[1] if len(classes) == 2 else np.mean(precisions)
        found["balanced_accuracy"] = balanced_accuracy_score(y, predicted, sample_weight=weights)
    return found


@settings(deadline=None, max_examples=25)
@given(st.integers(12, 60), st.integers(2, 4), st.integers(0, 10**6))
def test_every_resample_has_the_metrics_of_scikit_learn(n, classes, seed):
    y, *rest = answers(n, classes, seed)
    y[:classes] = np.arange(classes)
    (counts,) = resampled(n, 3, seed)
    found = WeightedMetrics(Predictions.of(y, *rest))(counts)
    assert set(found) == set(METRICS)
    for b, weights in enumerate(counts):
        for name, wanted in by_scikit_learn(y, *rest, weights).items():
            assert found[name][b] == pytest.approx(wanted, nan_ok=True, abs=1e-12), name


def test_float32_probabilities_and_decision_values_have_them_too():
    y, probabilities, predicted, classes = answers(80, 2, dtype=np.float32)
    (counts,) = resampled(80, 4, 1)
    found = WeightedMetrics(Predictions.of(y, probabilities, predicted, classes))(counts)
    decided = WeightedMetrics(Predictions.of(y, None, predicted, classes, probabilities[:, 1]))(counts)
    assert set(decided) == {"balanced_accuracy", "macro_f1", "roc_auc", "average_precision"}
    np.testing.assert_array_equal(decided["roc_auc"], found["roc_auc"])
    for b, weights in enumerate(counts):
        wanted = by_scikit_learn(y, probabilities, predicted, classes, weights)
        assert {name: found[name][b] for name in found} == pytest.approx(wanted, rel=1e-6)


def test_rows_are_drawn_evenly_with_replacement():
    counts = np.concatenate(list(resampled(50, 4000, 0)))
    assert counts.shape == (4000, 50)
    assert (counts.sum(axis=1) == 50).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.1)
    assert counts.var() == pytest.approx(1 - 1 / 50, abs=0.02)


@pytest.mark.parametrize("block", [1, 700, 10**6])
def test_blocks_change_nothing_but_the_memory(monkeypatch, block):
    made = answers(100, 3)
    wanted = intervals(*made, resamples=30)
    monkeypatch.setattr(module, "_BLOCK", block)
    assert all(counts.size <= max(block, 100) for counts in resampled(100, 30, 0))
    for name, bounds in intervals(*made, resamples=30).items():
        assert bounds == pytest.approx(wanted[name])


def test_bounds_are_percentiles_of_the_resamples():
    made = answers(100, 3)
    (counts,) = resampled(100, 200, 5)
    values = WeightedMetrics(Predictions.of(*made))(counts)
    found = intervals(*made, resamples=200, seed=5, confidence=0.8)
    for name in METRICS:
        assert found[name] == pytest.approx(tuple(np.quantile(values[name], [0.1, 0.9])))


def test_the_interval_has_the_width_that_theory_gives():
    """Balanced classes, log loss: the bootstrap must agree with the standard error of a mean."""
    y, probabilities, predicted, classes = answers(2000, 2)
    low, high = intervals(y, probabilities, predicted, classes)["log_loss"]
    losses = -np.log(probabilities[np.arange(2000), y])
    assert (high - low) / 2 == pytest.approx(1.96 * losses.std() / np.sqrt(2000), rel=0.1)
    assert (high + low) / 2 == pytest.approx(losses.mean(), rel=0.02)


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    made = answers(100, 2)
    assert intervals(*made, resamples=50) == intervals(*made, resamples=50)
    assert intervals(*made, resamples=50) != intervals(*made, resamples=50, seed=1)


def test_more_rows_and_less_confidence_narrow_the_interval():
    def width(n, confidence=0.95):
        low, high = intervals(*answers(n, 2), confidence=confidence)["roc_auc"]
        return high - low

    assert width(2000) < width(100)
    assert width(100, 0.5) < width(100)


def test_resamples_without_a_class_are_left_out():
    """One row of 40 is missing in a third of the resamples; in the others its class is always wrong."""
    y = np.array([0] * 20 + [1] * 19 + [2])
    found = intervals(y, None, np.where(y == 2, 0, y), [0, 1, 2], resamples=300)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3, 2 / 3))


def test_where_most_resamples_miss_a_class_there_is_no_interval():
    y = np.array([0] * 20 + [1] * 20 + [2, 3, 4])
    found = intervals(y, None, y, range(5), resamples=300)
    assert found["balanced_accuracy"] == (None, None)


def test_what_has_no_score_has_no_interval():
    y, _, predicted, classes = answers(30, 2)
    found = intervals(y, None, predicted, classes, resamples=20)
    assert found["log_loss"] == found["ece"] == found["roc_auc"] == (None, None)
    assert found["macro_f1"][0] < found["macro_f1"][1]
    missing = intervals(np.zeros(9, int), np.full((9, 2), 0.5), np.zeros(9, int), [0, 1], resamples=20)
    assert missing["roc_auc"] == (None, None)
    assert missing["balanced_accuracy"] == (1.0, 1.0)


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"confidence": 0.0}, {"confidence": 1.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        intervals(*answers(10, 2), **wrong)


def test_average_precision_counts_only_classes_that_are_there():
    y = np.array([1, 1, 1, 0])
    counts = np.array([[1.0, 1, 1, 0], [0, 0, 0, 1]])
    found = WeightedMetrics(Predictions.of(y, None, y, [0, 1], np.array([3.0, 2, 2, 1])))(counts)
    np.testing.assert_equal(found["average_precision"], [1.0, np.nan])
    np.testing.assert_equal(found["roc_auc"], [np.nan, np.nan])


def test_groups_are_drawn_as_wholes_and_weights_multiply():
    y, probabilities, predicted, classes = answers(60, 2)
    groups, weights = np.repeat(np.arange(20), 3), np.arange(60) + 1.0
    given = Predictions.of(y, probabilities, predicted, classes, weights=weights, groups=groups)
    drawn = np.concatenate(list(resampled_weights(given, 50, 0)))
    counts = drawn / weights
    assert counts.shape == (50, 60)
    np.testing.assert_array_equal(counts[:, ::3], counts[:, 2::3])
    assert (counts.sum(axis=1) == 60).all()
    assert len(np.unique(counts[0])) > 2


def test_weighted_and_grouped_intervals_are_those_of_rows_written_out():
    """Rows of a group that are all alike are one row that weighs as much."""
    y, probabilities, predicted, classes = made = answers(40, 3)
    alike = [np.repeat(column, 4, axis=0) for column in (y, probabilities, predicted)]
    grouped = intervals(*alike, classes, resamples=50, groups=np.repeat(np.arange(40), 4))
    for name, bounds in intervals(*made, resamples=50).items():
        assert grouped[name] == pytest.approx(bounds)
    low, high = intervals(*alike, classes, resamples=50)["log_loss"]
    assert high - low < 0.7 * (grouped["log_loss"][1] - grouped["log_loss"][0])
    tripled = intervals(*made, resamples=50, weights=np.full(40, 3.0))
    assert tripled == intervals(*made, resamples=50)
    heavy = intervals(*made, resamples=50, weights=np.where(y == 0, 5.0, 1.0))
    assert heavy["log_loss"] != pytest.approx(intervals(*made, resamples=50)["log_loss"])
