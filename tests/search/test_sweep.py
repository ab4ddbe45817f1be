"""Stage 2b as its users see it: a leaderboard, a recommended head, a search that survives being killed."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import TINY_BASE, make_photos, run_cli
from PIL import Image

from featcache.cli import main
from featcache.errors import RecipeError, TrainingError
from featcache.extraction.stage import extract
from featcache.model import Model
from featcache.recipe import Recipe, SpaceSettings
from featcache.reporter import Reporter
from featcache.run.results import read_results
from featcache.search.space import SearchSpace
from featcache.search.sweep import run_sweep
from featcache.training import train_heads

SPACE = {
    "log": {"type": "LogisticRegression", "C": {"low": 1e-6, "high": 10.0, "log": True}},
    "knn": {"type": "KNeighborsClassifier", "n_neighbors": {"low": 1, "high": 60}},
}


class Listener(Reporter):
    def __init__(self):
        self.notes, self.steps = [], []

    def note(self, text):
        self.notes.append(text)

    def advance(self, stage, done, total):
        self.steps.append((stage, done, total))


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_store):
    """Photos of two classes that a head can tell apart, not too well, and a store that has their features."""
    place = tmp_path_factory.mktemp("sweep")
    shutil.copytree(tiny_store, place / "cache")
    make_photos(place / "photos", per_class=30)
    for photo in (place / "photos" / "dog").iterdir():
        Image.open(photo).point(lambda value: value // 2).save(photo)
    extract(recipe_with(place, place / "run"))
    return place


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


def recipe_with(place, run, space=SPACE, trials=12, test=0.2, method="validation", **sweep):
    data = {"root": str(place / "photos")}
    data["split"] = {"train": 0.7 - test, "validation": 0.3, "test": test}
    paths = {"cache": str(place / "cache"), "run": str(run)}
    section = {"space": space, "trials": trials, "sampler": "random"} | sweep
    sections = {"data": data, "base": TINY_BASE, "sweep": section, "selection": {"method": method}}
    return Recipe.parse(sections | paths)


def ranking(result):
    return [(e.finished.trial, e.finished.searched, e.finished.outcome.scores, e.tied, e.recommended)
            for e in result.leaderboard.entries]  # fmt: skip


def test_a_sweep_gives_a_leaderboard_and_a_model_that_predicts(place, tmp_path):
    listener = Listener()
    result = run_sweep(recipe_with(place, tmp_path / "run", metric="accuracy"), listener)
    board = result.leaderboard
    assert len(board.entries) + len(board.failed) == 13, "twelve trials and the default head"
    values = [entry.finished.outcome.value for entry in board.entries]
    assert values == sorted(values, reverse=True)
    chosen = board.recommended.finished
    model = Model.load(result.best.model)
    assert (model.name, result.best.name) == ("sweep-best", "sweep-best")
    if chosen.trial is not None:
        parameters = model.head.get_params()
        for key, value in chosen.searched.items():
            assert parameters[f"classifier__{key}"] == value
    assert result.best.validation["accuracy"] == chosen.outcome.scores["accuracy"]
    assert result.best.test["n"] > 0
    assert Model.load(tmp_path / "run").name == "sweep-best"
    steps = [(done, total) for stage, done, total in listener.steps if stage == "sweeping"]
    assert steps[0] == (0, 12)
    assert steps[-1] == (12, 12)


def test_heads_that_fail_are_on_record_and_stop_nothing(place, tmp_path):
    result = run_sweep(recipe_with(place, tmp_path / "run", trials=16))
    assert result.leaderboard.failed
    for one in result.leaderboard.failed:
        assert one.head == "knn"
        assert "n_neighbors" in one.outcome.reason
    written = json.loads((tmp_path / "run" / "sweep" / "leaderboard.json").read_text())
    assert written == json.loads(json.dumps(result.leaderboard.to_json()))
    rows = list(csv.DictReader((tmp_path / "run" / "sweep" / "leaderboard.csv").open()))
    trials = [int(row["trial"]) if row["trial"] else None for row in rows]
    assert trials == [e.finished.trial for e in result.leaderboard.entries]


def test_the_same_seed_gives_the_same_leaderboard_and_a_second_run_tries_nothing(place, tmp_path):
    first, again = (run_sweep(recipe_with(place, tmp_path / name, sampler="tpe", trials=20)) for name in "ab")
    assert ranking(first) == ranking(again)
    listener = Listener()
    repeated = run_sweep(recipe_with(place, tmp_path / "a", sampler="tpe", trials=20), listener)
    assert ranking(repeated) == ranking(first)
    assert any("20 of 20 trials are there" in note for note in listener.notes)


def test_a_changed_space_begins_another_study_and_says_so(place, tmp_path):
    first = run_sweep(recipe_with(place, tmp_path / "run", trials=4))
    listener = Listener()
    other = {"nb": {"type": "GaussianNB", "var_smoothing": [1e-9, 1e-3]}}
    second = run_sweep(recipe_with(place, tmp_path / "run", space=other), listener)
    assert first.study != second.study
    assert any(second.study in note and "begins" in note for note in listener.notes)
    assert {
        entry.finished.head for entry in second.leaderboard.entries if entry.finished.trial is not None
    } == {"nb"}


def test_dense_heads_and_scikit_learns_are_searched_together(place, tmp_path):
    space = {
        "linear": {"type": "dense", "units": [], "epochs": [2, 3], "pooling": ["avg", "flatten"]},
        "nb": {"type": "GaussianNB"},
        "wild": {"type": "dense", "units": [4], "epochs": 2, "learning_rate": 1e30},
    }
    result = run_sweep(recipe_with(place, tmp_path / "run", space=space, sampler="grid", trials=None))
    assert [entry.finished.head for entry in result.leaderboard.entries].count("linear") == 4
    assert {e.finished.outcome.epochs for e in result.leaderboard.entries} >= {2, 3, None}
    (failed,) = result.leaderboard.failed
    assert failed.head == "wild"
    assert "diverged" in failed.outcome.reason


def test_when_nothing_can_be_trained_the_reason_is_told(place, tmp_path):
    space = {"knn": {"type": "KNeighborsClassifier", "n_neighbors": [500, 600]}}
    with pytest.raises(TrainingError, match=r"none of the 2 heads.*n_neighbors = (500|600).*sweep\.space"):
        run_sweep(recipe_with(place, tmp_path / "run", space=space))


def test_a_metric_that_validation_does_not_define_is_refused_before_the_first_trial(
    place, tmp_path, monkeypatch
):
    monkeypatch.setattr("featcache.search.sweep.run_trials", lambda *_: pytest.fail("a trial was run"))
    for split in ("train", "validation"):
        for name in ("cat", "dog") if split == "train" else ("cat",):
            shutil.copytree(place / "photos" / name, tmp_path / split / name)
    recipe = recipe_with(place, tmp_path / "run", metric="roc_auc")
    data = recipe.data.model_copy(
        update={"root": None, "train": tmp_path / "train", "validation": tmp_path / "validation"}
    )
    with pytest.raises(TrainingError, match=r"'roc_auc' needs validation photos.*none of 'dog'"):
        run_sweep(recipe.model_copy(update={"data": data}))


@pytest.mark.parametrize(
    ("metric", "head", "message"),
    [
        (
            "log_loss",
            {"type": "LinearSVC"},
            "LinearSVC has no probabilities, which metric = 'log_loss' needs",
        ),
        ("log_loss", {"type": "SGDClassifier", "loss": ["hinge"]}, "SGDClassifier has no probabilities"),
        (
            "roc_auc",
            {"type": "NearestCentroid", "metric": "manhattan"},
            "NearestCentroid has neither probabilities nor decision values",
        ),
    ],
)
def test_a_head_without_what_the_metric_needs_is_refused_before_any_photo_is_read(
    place, tmp_path, monkeypatch, metric, head, message
):
    monkeypatch.setattr("featcache.search.sweep.extract", lambda *_: pytest.fail("photos were read"))
    with pytest.raises(RecipeError, match=message):
        run_sweep(recipe_with(place, tmp_path / "run", space={"x": head}, metric=metric))


def test_pairs_of_classes_rank_none_of_three(place):
    space = SearchSpace({"x": SpaceSettings(type="SVC", decision_function_shape="ovo")})
    space.check("roc_auc", 2)
    with pytest.raises(RecipeError, match=r"SVC has no decision value for each class, .*'roc_auc' needs"):
        space.check("roc_auc", 3)


def test_a_mistake_is_found_before_any_photo_is_read(place, tmp_path, monkeypatch):
    monkeypatch.setattr("featcache.search.sweep.extract", lambda *_: pytest.fail("photos were read"))
    with pytest.raises(RecipeError, match="unknown key 'Q'"):
        run_sweep(recipe_with(place, tmp_path / "run", space={"x": {"type": "SVC", "Q": [1, 2]}}))


def test_few_photos_are_cross_validated(place, tmp_path):
    space = {"log": SPACE["log"], "linear": {"type": "dense", "epochs": 2, "learning_rate": [1e-3, 1e-2]}}
    listener = Listener()
    recipe = recipe_with(place, tmp_path / "run", space, trials=8, method="auto")
    result = run_sweep(recipe, listener)
    assert any("5-fold cross-validation" in note for note in listener.notes)
    photos = len(list((place / "photos").glob("*/*"))) - result.best.test["n"]
    assert {entry.finished.outcome.scores["n"] for entry in result.leaderboard.entries} == {photos}
    assert len(result.best.validation["folds"]["accuracy"]) == 5
    chosen = result.leaderboard.recommended.finished
    assert result.best.validation["log_loss"] == pytest.approx(chosen.outcome.scores["log_loss"], rel=1e-4)
    assert not any(entry.finished.outcome.stopped for entry in result.leaderboard.entries)
    asked = recipe.model_copy(update={"data": recipe.data.model_copy(update={"folds": 3})})
    assert len(run_sweep(asked).best.validation["folds"]["accuracy"]) == 3


def test_where_nothing_is_better_the_default_head_is_recommended(place, tmp_path):
    space = {"knn": {"type": "KNeighborsClassifier", "n_neighbors": [11, 12, 13]}}
    result = run_sweep(recipe_with(place, tmp_path / "run", space, sampler="grid", trials=None))
    assert result.leaderboard.recommended.finished.trial is None
    assert result.leaderboard.default_stands
    model = Model.load(result.best.model)
    assert model.name == "sweep-best"
    assert not hasattr(model.head, "n_neighbors")


def test_without_probabilities_somewhere_a_sweep_that_names_no_metric_goes_by_accuracy(place, tmp_path):
    listener = Listener()
    space = {"svc": {"type": "LinearSVC", "C": [0.1, 1.0]}}
    result = run_sweep(recipe_with(place, tmp_path / "run", space, sampler="grid"), listener)
    assert result.leaderboard.metric == "accuracy"
    assert any("have no log_loss" in note for note in listener.notes)
    assert result.looks.count == 1


def test_the_metric_of_a_sweep_is_not_that_of_the_run(place, tmp_path):
    space = {"svc": {"type": "LinearSVC", "C": [0.1, 1.0]}}
    recipe = recipe_with(place, tmp_path / "run", space, sampler="grid", metric="accuracy")
    selection = recipe.selection.model_validate({"metric": "log_loss", "method": "validation"})
    result = run_sweep(recipe.model_copy(update={"selection": selection}))
    assert result.leaderboard.metric == "accuracy"
    assert read_results(tmp_path / "run").metric == "log_loss"


def test_when_the_time_is_up_no_more_is_asked(place, tmp_path):
    result = run_sweep(recipe_with(place, tmp_path / "run", trials=60, timeout=0.001, sampler="tpe"))
    assert 0 < len(result.leaderboard.entries) <= 16


def test_the_winner_joins_the_heads_that_were_trained_before(place, tmp_path):
    recipe = recipe_with(place, tmp_path / "run", trials=2)
    train_heads(recipe.with_heads(["LogisticRegression"]))
    run_sweep(recipe)
    written = json.loads((tmp_path / "run" / "heads.json").read_text())
    assert {head["name"] for head in written["heads"]} == {"LogisticRegression", "sweep-best"}


# ---- the command line ------------------------------------------------------------------------------------


def write_toml(place, folder, trials=40):
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f"run = '{folder / 'run'}'\ncache = '{place / 'cache'}'\n"
        f"[data]\nroot = '{place / 'photos'}'\nsplit = {{ train = 0.5, validation = 0.3, test = 0.2 }}\n"
        "[base]\nname = 'MobileNetV2'\narguments = { alpha = 0.35 }\nweights = 'random'\nimage_size = 32\n"
        f"batch_size = 8\n[sweep]\ntrials = {trials}\nsampler = 'random'\n"
        "[sweep.space.forest]\ntype = 'RandomForestClassifier'\nn_estimators = { low = 1, high = 60 }\n"
    )
    return recipe


def test_the_command_prints_json_or_a_table(place, tmp_path, capfd):
    recipe = write_toml(place, tmp_path)
    assert main(["sweep", str(recipe), "--trials", "5", "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert set(printed) == {"run", "features", "study", "journal", "leaderboard", "best", "test_looks"}
    assert len(printed["leaderboard"]["entries"]) == 6
    assert sum(entry["recommended"] for entry in printed["leaderboard"]["entries"]) == 1
    assert printed["best"]["model"].endswith("sweep-best")
    assert main(["sweep", str(recipe), "--trials", "5"]) == 0
    shown = capfd.readouterr().out
    assert "n_estimators=" in shown
    assert "Recommended: " in shown
    assert "test was looked at twice" in shown


def test_a_wrong_number_of_trials_is_an_expected_failure(place, tmp_path, capfd):
    assert main(["sweep", str(write_toml(place, tmp_path)), "--trials", "0"]) == 1
    assert "sweep.trials = 0" in capfd.readouterr().err


def test_a_killed_command_goes_on_where_it_was(place, tmp_path):
    recipe, journal = write_toml(place, tmp_path), tmp_path / "run" / "sweep" / "journal.log"
    command = [sys.executable, "-m", "featcache.cli", "sweep", str(recipe)]
    environment = os.environ | {"LOKY_MAX_CPU_COUNT": "1"}
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while child.poll() is None and not (journal.exists() and b'"state":1' in journal.read_bytes()):
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = journal.read_bytes().count(b'"state":1')
    assert 0 < before < 40
    done = run_cli("sweep", recipe, "--json", LOKY_MAX_CPU_COUNT="1")
    assert done.returncode == 0, done.stderr
    entries = json.loads(done.stdout)["leaderboard"]["entries"]
    entries = [entry for entry in entries if entry["trial"] is not None]  # without the default head
    assert sorted(entry["trial"] for entry in entries) == list(range(40))
    assert len({json.dumps(entry["searched"]) for entry in entries}) == 40
