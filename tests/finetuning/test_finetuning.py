"""Fine-tuning from the boundary is fine-tuning through the whole network, and can be stopped anywhere."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import TINY_BASE, make_photos, run_cli
from PIL import Image

from featcache.errors import BaseNetworkError, RecipeError
from featcache.featurize import decode_photos
from featcache.finetuning import stage as finetuning
from featcache.finetuning.stage import finetune, train_and_finetune
from featcache.heads.dense.feed import Streamed
from featcache.model import Model
from featcache.recipe import AugmentSettings, Recipe
from featcache.report import finetuning as tuning_report
from featcache.report.plots import write_curves_of_heads
from featcache.run.results import best_head, read_predictions
from featcache.training import stage as stage_of_training

LINEAR = {"type": "dense", "epochs": 5, "dropout": 0.2, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("finetuning")
    make_photos(place / "photos", per_class=24)
    for photo in (place / "photos" / "dog").iterdir():
        Image.open(photo).point(lambda value: value // 2).save(photo)
    return place


def recipe_in(place, run, base=TINY_BASE, **finetune_settings):
    given = {"unfreeze_from": 100, "epochs": 3, "learning_rate": 1e-3, "batch_size": 8}
    split = {"train": 0.6, "validation": 0.2, "test": 0.2}
    return Recipe.parse(
        {
            "data": {"root": str(place / "photos"), "split": split},
            "base": base,
            "heads": [LINEAR, {"type": "LogisticRegression"}],
            "finetune": given | finetune_settings,
            "cache": str(place / "cache"),
            "run": str(place / run),
        }
    )


@pytest.fixture(scope="module")
def done(place):
    return finetune(recipe_in(place, "run"), score_epochs=True)


NETWORKS = {
    "MobileNetV2": {"unfreeze_from": 100},
    "MobileNetV2, Adam": {"unfreeze_from": 100, "optimizer": "adam"},
    "VGG16": {"from_layer": "block5_conv1", "learning_rate": 1e-4},
    # inside a residual block: what jumps over it is computed above the boundary, too
    "ResNet50": {"from_layer": "conv5_block2_2_conv", "learning_rate": 1e-4},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "MobileNetV2")) for name in NETWORKS]
)
def test_it_gives_the_numbers_of_training_through_the_whole_network(place, name):
    """The same order of batches, the same dropout; losses of all epochs, weights of the last."""
    network, _, _ = name.partition(",")
    base = TINY_BASE if network == "MobileNetV2" else {**TINY_BASE, "name": network, "arguments": {}}
    found = []
    for whole in (False, True):
        recipe = recipe_in(place, f"{name}-{whole}", base, **{"unfreeze_from": None, **NETWORKS[name]})
        found.append(finetune(recipe, end_to_end=whole).history)
    cached, whole = found
    assert cached.before == pytest.approx(whole.before, rel=1e-4)
    for measure in ("loss", "val_loss"):
        assert cached.per_epoch[measure] == pytest.approx(whole.per_epoch[measure], rel=1e-3)
    last = [last_weights(place / f"{name}-{whole}") for whole in (False, True)]
    for one, other in zip(*last, strict=True):
        assert np.linalg.norm(one - other) <= 1e-3 * max(np.linalg.norm(other), 1e-3)


def last_weights(run):
    (path,) = run.glob("finetune/epochs-*/epoch-0003.npz")
    # the last 32 bytes are the checksum
    with np.load(io.BytesIO(path.read_bytes()[:-32])) as file:
        return [file[name] for name in file.files if name.startswith("weight_")]


def test_it_learns_and_starts_from_the_trained_head(done):
    assert done.head == "linear"
    assert done.history.per_epoch["loss"][-1] < done.history.per_epoch["loss"][0]
    assert len(done.history.per_epoch["test_accuracy"]) == 3
    # what the head ended with is where fine-tuning starts
    assert done.history.before["loss"] == pytest.approx(done.started_from.history_["val_loss"][-1], rel=0.05)
    told = done.to_json()
    assert told["head_before"] == done.started_from.before_
    assert [len(values) for values in told["head_history"].values()] == [5] * 4
    # what the head alone scores
    assert done.history.before["accuracy"] == pytest.approx(
        json.loads((done.extraction.run.parent / "models/linear/model.json").read_text())["scores"][
            "validation"
        ]["accuracy"]
    )


def test_it_starts_from_a_fresh_head_only_where_that_is_asked_for(done, place):
    fresh = finetune(recipe_in(place, "fresh", fresh_head=True, epochs=1))
    assert (done.fresh_head, fresh.fresh_head) == (False, True)
    assert (fresh.started_from.n_iter_, fresh.started_from.before_) == (0, None)
    assert set(map(len, fresh.started_from.history_.values())) == {0}
    assert fresh.history.before["loss"] != pytest.approx(done.history.before["loss"], rel=1e-3)
    assert "reinitialized" in str(tuning_report.epochs_table(fresh).title)


def test_the_model_predicts_photos_as_it_was_scored(done, place):
    model = Model.load(done.result.model)
    with done.extraction.open() as features:
        paths, labels = features["validation"].paths, features["validation"].labels
    said = [one.label for one in model.predict(paths)]
    assert [one.label for one in model.predict(decode_photos(paths, model.settings))] == said
    right = np.mean([label == model.classes[number] for label, number in zip(said, labels, strict=True)])
    assert right == pytest.approx(done.result.validation["accuracy"])
    assert done.result.validation["accuracy"] == pytest.approx(
        done.history.per_epoch["val_accuracy"][done.history.best_epoch - 1]
    )


def test_the_model_knows_the_photos_that_it_was_tuned_and_chosen_on(done):
    photos = Model.load(done.result.model).photos
    with done.extraction.open() as features:
        digests = {split: features[split].digests for split in features.splits}
    assert photos.trained_on(digests["train"]).all()
    assert photos.chosen_on(digests["validation"]).all()
    assert not photos.trained_on(digests["test"]).any()
    assert not photos.chosen_on(digests["test"]).any()


def test_it_is_entered_among_the_runs_heads(done, place):
    written = json.loads((place / "run" / "heads.json").read_text())
    assert [head["name"] for head in written["heads"]] == ["linear", "finetuned"]


def test_its_predictions_and_its_history_are_kept_in_the_run(done, place):
    kept = read_predictions(place / "run")
    assert set(kept.heads) == {"linear", "finetuned"}
    right = np.mean(kept.heads["finetuned"].predicted == kept.rows.labels)
    assert right == pytest.approx(done.result.validation["accuracy"])
    history = json.loads((place / "run" / "finetune" / "history.json").read_text())
    assert history["history"] == done.history.per_epoch
    assert history["head_history"] == done.started_from.history_


def test_a_head_of_the_run_is_not_trained_again_where_nothing_changed(done, place, monkeypatch):
    monkeypatch.setattr("featcache.training.stage.train_head", lambda *_: pytest.fail("it was trained again"))
    again = finetune(recipe_in(place, "run"), score_epochs=True)
    assert again.history.per_epoch == done.history.per_epoch
    assert again.started_from.history_ == done.started_from.history_


def test_run_trains_each_head_once_and_its_best_is_that_of_all(place, monkeypatch):
    trained, train = [], stage_of_training.train_head
    monkeypatch.setattr(
        stage_of_training, "train_head", lambda *given: trained.append(given[1].name) or train(*given)
    )
    monkeypatch.setattr(Model, "load", lambda *_: pytest.fail("a head that is in memory was read back"))
    training, tuned = train_and_finetune(recipe_in(place, "once", epochs=1))
    assert trained == ["linear", "LogisticRegression"]
    assert tuned.head == "linear"
    heads = [*training.heads, tuned.result]
    assert training.best == best_head(heads, "log_loss").name
    assert write_curves_of_heads(training) == [place / "once" / "curves" / "linear.png"]


def test_folds_are_refused_before_any_photo_is_read(place, monkeypatch):
    """With folds heads learn from the validation photos, on which the best epoch would be chosen."""
    recipe = recipe_in(place, "folds")
    folded = recipe.model_copy(update={"data": recipe.data.model_copy(update={"folds": 3})})
    monkeypatch.setattr("featcache.extraction.stage.find_photos", lambda *_: pytest.fail("photos were read"))
    for stage in (finetune, train_and_finetune):
        with pytest.raises(RecipeError, match=r"data\.folds = 3 does not go with \[finetune\]"):
            stage(folded)


def test_batch_statistics_stay_what_they_were(done):
    layers = Model.load(done.result.model).head.model_.get_layer("upper").layers
    moving = [
        (layer.moving_mean.numpy(), layer.moving_variance.numpy())
        for layer in layers
        if type(layer).__name__ == "BatchNormalization"
    ]
    assert moving
    for mean, variance in moving:  # those of a network with random weights
        assert (mean == 0).all()
        assert (variance == 1).all()


_CHILD = """
import sys
from featcache.finetuning.stage import finetune, train_and_finetune
from featcache.recipe import Recipe
from featcache.report import finetuning as tuning_report
from featcache.report.plots import write_curves_of_heads
from featcache.run.results import best_head, read_predictions
from featcache.training import stage as stage_of_training
finetune(Recipe.load(sys.argv[1]))
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_history(done, place):
    recipe = recipe_in(place, "killed", epochs=6)
    whole = finetune(recipe_in(place, "whole", epochs=6)).history.per_epoch
    for kill_after in (1, 2, 3, 4, 5):
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _CHILD.replace("Recipe.load(sys.argv[1])", f"Recipe.parse({as_raw(recipe)})"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        while child.poll() is None and epochs_of(place / "killed") < kill_after:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert 1 <= epochs_of(place / "killed") <= 6
    assert finetune(recipe).history.per_epoch == whole


def as_raw(recipe):
    return repr(json.loads(recipe.model_dump_json(exclude_none=True, exclude={"sweep"})))


def epochs_of(run):
    return len(list(run.glob("finetune/epochs-*/epoch-*.npz")))


@pytest.mark.slow
def test_more_epochs_go_on_from_those_that_are_there(place):
    short = finetune(recipe_in(place, "longer", epochs=1)).history
    longer = finetune(recipe_in(place, "longer", epochs=2)).history
    assert longer.history["loss"][0] == short.history["loss"][0]
    assert longer.epochs == 2


# ---- augmentation ----------------------------------------------------------------------------------------

AUGMENT = {"views": 3, "flip": True, "rotation": 0.05}


def augmented_in(place, run, augment=AUGMENT, **finetune_settings):
    recipe = recipe_in(place, run, **finetune_settings)
    return recipe.model_copy(update={"augment": AugmentSettings(**augment)})


@pytest.fixture(scope="module")
def in_views(place):
    return finetune(augmented_in(place, "views"))


def test_it_learns_from_views_and_is_measured_on_photos(in_views):
    history = in_views.history.per_epoch
    assert history["loss"][-1] < history["loss"][0]
    with in_views.extraction.open() as features:
        assert (features["train"].views, features["validation"].views) == (3, 1)
        assert in_views.result.validation["n"] == len(features["validation"])


@pytest.mark.slow
def test_ended_after_an_epoch_it_draws_the_same_views_also_from_disk(in_views, place, monkeypatch):
    finetune(augmented_in(place, "continued", epochs=1))
    monkeypatch.setattr(finetuning, "_MAX_MEMORY", 1)  # all photos are one block
    streamed = []
    monkeypatch.setattr(finetuning, "Streamed", lambda *given: streamed.append(given) or Streamed(*given))
    continued = finetune(augmented_in(place, "continued"))
    assert streamed
    assert continued.extraction.computed == 0
    assert continued.history.per_epoch["loss"] == pytest.approx(in_views.history.per_epoch["loss"], rel=1e-4)


@pytest.mark.slow
def test_through_the_whole_network_photos_are_augmented_anew(place):
    augment = AUGMENT | {"crop": (0.7, 1.0), "brightness": 0.2, "contrast": 0.2}
    whole = finetune(augmented_in(place, "anew", augment, epochs=2), end_to_end=True)
    history = whole.history.per_epoch
    assert history["loss"][-1] < history["loss"][0]
    with whole.extraction.open() as features:
        assert features["train"].views == 1, "no view is stored below the boundary"
    # ended after an epoch it goes on with the random numbers that come next
    finetune(augmented_in(place, "anew-continued", augment, epochs=1), end_to_end=True)
    continued = finetune(augmented_in(place, "anew-continued", augment, epochs=2), end_to_end=True)
    assert continued.history.per_epoch == history
    # and does not go on with another augmentation's
    other = finetune(augmented_in(place, "anew", epochs=1), end_to_end=True)
    assert other.history.per_epoch["loss"] != history["loss"][:1]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"head": "LogisticRegression"}, RecipeError, "is not a Dense head of the recipe; those are linear"),
        ({"unfreeze_from": 400}, BaseNetworkError, "has 154 layers"),
        ({"unfreeze_from": 1}, BaseNetworkError, "nothing below the first layer to train is frozen"),
        ({"unfreeze_from": None, "from_layer": "block_99"}, BaseNetworkError, "not a layer of MobileNetV2"),
    ],
)
def test_what_cannot_be_is_refused_before_any_photo_is_read(place, monkeypatch, settings, error, message):
    monkeypatch.setattr("featcache.extraction.stage.find_photos", lambda *_: pytest.fail("photos were read"))
    for stage in (finetune, train_and_finetune):
        with pytest.raises(error, match=message):
            stage(recipe_in(place, "refused", **settings))
    assert not (place / "refused").exists()


DIVERGES = {"type": "dense", "name": "diverges", "units": [4], "learning_rate": 1e30}


def with_heads(recipe, *heads):
    raw = json.loads(recipe.model_dump_json(exclude_none=True, exclude={"sweep"}))
    return Recipe.parse(raw | {"heads": list(heads)})


def test_it_starts_from_a_head_that_could_be_trained(place):
    training, tuned = train_and_finetune(
        with_heads(recipe_in(place, "one-fails", epochs=1), DIVERGES, LINEAR)
    )
    assert [failure.name for failure in training.failed] == ["diverges"]
    assert tuned.head == "linear"


@pytest.mark.parametrize("of", ["heads", "finetuning"])
def test_a_fine_tuning_that_fails_does_not_lose_the_heads(place, of):
    settings = {"epochs": 1} | ({"learning_rate": 1e30} if of == "finetuning" else {})
    recipe = recipe_in(place, f"no-{of}", **settings)
    dense = LINEAR if of == "finetuning" else DIVERGES
    training, tuned = train_and_finetune(with_heads(recipe, dense, {"type": "LogisticRegression"}))
    assert tuned is None
    assert training.failed[-1].name == "finetuned"
    assert "LogisticRegression" in {head.name for head in training.heads}


def test_a_recipe_must_say_where_to_start(place):
    recipe = recipe_in(place, "none").model_copy(update={"finetune": None})
    with pytest.raises(RecipeError, match=r"no \[finetune\]"):
        finetune(recipe)
    with pytest.raises(RecipeError, match="exactly one of from_layer and unfreeze_from"):
        recipe_in(place, "both", from_layer="block_1_expand")


def test_run_trains_heads_and_fine_tunes(place):
    options = ["--set", "base.arguments={alpha=0.35}", "--weights", "random", "--image-size", "32"]
    result = run_cli(
        *("run", place / "photos", *options, "--cache", place / "cache", "--run", place / "all", "--json"),
        *("--set", "finetune.unfreeze_from=150", "--set", "finetune.epochs=1"),
    )
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert {head["name"] for head in printed["heads"]} > {"dense-256"}
    assert printed["finetune"]["model"]["name"] == "finetuned"
    assert (place / "all" / "curves" / "finetuned.png").is_file()


def test_the_command_prints_layers_epochs_and_the_model(place):
    options = ["--set", "base.arguments={alpha=0.35}", "--weights", "random", "--image-size", "32"]
    result = run_cli(
        *("finetune", place / "photos", *options, "--unfreeze-from", "150", "--epochs", "1"),
        *("--cache", place / "cache", "--run", place / "cli", "--set", "heads.dense-256.epochs=2"),
    )
    assert result.returncode == 0, result.stderr
    assert "block_16_project_BN" in result.stdout
    assert "before" in result.stdout
    assert "models/finetuned" in result.stdout
    assert f"Learning curves: {place / 'cli' / 'curves' / 'finetuned.png'}" in result.stdout
    with Image.open(place / "cli" / "curves" / "finetuned.png") as picture:
        assert picture.format == "PNG"
