"""Both sides train the same heads, and what they took is scaled and compared as the tables say."""

import json
import tomllib
from collections import Counter

import numpy as np
import pytest

from benchmarks import heads, heads_search, heads_sweep
from benchmarks.heads_jobs import JOBS, draw, jobs
from benchmarks.heads_side import Featcache, Keras, measure
from featcache.recipe import Recipe

GRIDS = [job for job in JOBS if len(job.heads) > 1]


def quick(name):
    (job,) = jobs([name], quick=True)
    return job


@pytest.mark.parametrize("job", GRIDS, ids=lambda job: job.name)
@pytest.mark.parametrize("setting", ["dropout", "learning_rate", "l2"])
def test_the_peer_trains_a_fair_share_of_a_grid(job, setting):
    share = Counter(getattr(head, setting) for head in job.peer_heads)
    whole = Counter(getattr(head, setting) for head in job.heads)
    assert {value: count * 16 for value, count in share.items()} == whole


@pytest.mark.parametrize("name", ["dense", "linear"])
def test_rows_can_be_learned_but_not_told_apart_wholly(name):
    (job,) = jobs([name])
    (X, y), (held_out, labels) = draw(job)
    direction = X[y == 1].mean(axis=0) - X[y == 0].mean(axis=0)
    accuracy = np.mean((held_out @ direction > 0) == labels)
    assert X.shape == (job.rows, job.features)
    assert X.dtype == np.float32
    assert 0.75 < accuracy < 0.95


def test_both_sides_get_the_same_rows():
    job = quick("linear")
    for ours, theirs in zip(draw(job), draw(job), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("name", ["dense", "dense_grid"])
def test_both_sides_train_the_same_network(name):
    job = quick(name)
    side = Keras(job)
    side.train()
    ((head, model),) = side._models.items()
    ours = Featcache(quick("dense"))._head(head).fit(*draw(job)[0])
    theirs = [weight.shape for weight in model.get_weights()]
    assert theirs == [
        weight.shape for pair in zip(ours.coefs_, ours.intercepts_, strict=True) for weight in pair
    ]
    assert model.optimizer.learning_rate.numpy() == pytest.approx(ours.learning_rate)
    assert [layer.rate for layer in model.layers if hasattr(layer, "rate")] == [ours.dropout]


def test_the_peer_starts_anew_after_its_tracing():
    job = quick("linear")
    side = Keras(job)
    side.train()
    (model,) = side._models.values()
    learned, traced = model.get_weights()[0], model.train_function
    steps = job.epochs * -(-job.rows // job.batch_size)
    assert model.optimizer.iterations.numpy() == steps
    side.rewind()
    assert model.optimizer.iterations.numpy() == 0
    assert not np.array_equal(model.get_weights()[0], learned)
    side.train()
    assert model.optimizer.iterations.numpy() == steps
    assert model.train_function is traced


@pytest.mark.parametrize("side", [Keras, Featcache])
def test_a_side_tells_both_times_and_the_accuracy(side):
    measured = measure(side(quick("linear")))
    assert 0 < measured["seconds"] < measured["first"]
    (accuracy,) = measured["accuracy"]
    assert 0 <= accuracy <= 1


def test_the_peers_seconds_are_those_of_all_heads():
    (job,) = jobs(["linear_grid"])
    ours = {"first": 2.0, "seconds": 0.5, "accuracy": [0.0] * 64}
    for number in (0, 21, 42, 63):
        ours["accuracy"][number] = 0.9
    theirs = {"first": 8.0, "seconds": 4.0, "accuracy": [0.8] * 4}
    result = heads.summarize(job, {"keras": [theirs] * 3, "featcache": [ours] * 3})
    assert result["seconds"]["keras"]["median"] == 64.0
    assert result["ratio"]["median"] == 128.0
    assert result["ratio_with_tracing"]["median"] == 64.0
    assert result["accuracy"] == {"keras": 0.8, "featcache": 0.9}
    assert "keras trained 4 of 64 heads; its seconds are theirs times 16" in heads.table(result).caption


def test_a_sweeps_peer_is_scaled_and_compared_over_as_many_trials(monkeypatch, tmp_path):
    searches = {
        "dense": {"trials": 20, "seconds": 30.0, "accuracy": 0.95},
        "classical": {"trials": 20, "seconds": 10.0, "accuracy": 0.97},
    }
    asked = []

    def child(module, what, *arguments):
        asked.append((what, *arguments))
        return searches if what == "peer" else {"rows": 2000, "held_out": 1000}

    reached = {199: 0.98, 39: 0.96, 40: 0.97, 0: 0.9}
    entries = [{"trial": trial, "validation": {"accuracy": value}} for trial, value in reached.items()]
    printed = json.dumps({"leaderboard": {"entries": entries}})
    monkeypatch.setattr(heads_sweep, "child", child)
    monkeypatch.setattr(heads_sweep, "timed", lambda command: (printed, 10.0))
    monkeypatch.setattr(heads_sweep, "_photos", lambda folder, count: None)
    sweep = heads_sweep.Sweep(tmp_path, quick=False, whole=False)
    result = heads_sweep.summarize(sweep, [sweep.run(0)])
    assert asked[-1] == ("peer", tmp_path / "arrays.npz", 20, 20)
    assert result["seconds"]["peer"]["median"] == 200.0
    assert result["ratio"]["median"] == 20.0
    assert result["runs"][0]["featcache"]["accuracy"] == 0.98
    assert result["runs"][0]["featcache"]["accuracy_of_as_many"] == 0.96
    assert "its seconds are theirs times 5" in heads_sweep.table(result).caption


def test_both_sides_of_the_sweep_train_alike():
    space = tomllib.loads(heads_sweep.RECIPE.read_text(encoding="utf-8"))["sweep"]["space"]
    dense = [kind for kind in space.values() if kind["type"] == "dense"]
    alike = (heads_search.EPOCHS, heads_search.BATCH_SIZE)
    assert {(kind["epochs"], kind["batch_size"]) for kind in dense} == {alike}


def test_the_sweeps_recipe_is_one():
    assert Recipe.load(heads_sweep.RECIPE).sweep.trials == heads_sweep.TRIALS


@pytest.mark.parametrize(
    "search",
    [
        pytest.param(heads_search.keras_tuner_search, marks=pytest.mark.slow),
        heads_search.scikit_learn_search,
    ],
)
def test_the_peers_search_is_scored_on_validation(search):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((400, 4), np.float32), np.tile([0, 1], 200)
    X[:, 0] += 8 * y - 4
    # every row with both labels: whatever a head says, half of it is right
    both = heads_search.Arrays(X, y, np.repeat(X, 2, axis=0), np.tile([0, 1], 400))
    assert search(both, 2) == pytest.approx(0.5)


@pytest.mark.slow
def test_a_quick_run_prints_a_table_and_keeps_the_result(monkeypatch, capsys, tmp_path):
    kept = {}
    monkeypatch.setattr(
        heads, "save", lambda name, result: kept.update({name: result}) or tmp_path / "x.json"
    )
    heads.main(["--quick", "--only", "linear"])
    assert "linear: one head 32 → 1" in capsys.readouterr().out
    (result,) = kept["heads"]["results"]
    assert result["ratio"]["median"] > 0
