"""The learning curve of a run and the spread over seeds: on validation, in folds, and as commands."""

import json

import numpy as np
import pytest
from conftest import run_cli
from PIL import Image

from featcache.errors import RecipeError
from featcache.evaluating.curve import curve_of_run
from featcache.evaluating.seeds import check_seeds, spread_over_seeds
from featcache.recipe import Recipe
from featcache.store.feature_file import Features
from featcache.training import train_heads

DENSE = {"type": "dense", "epochs": 2}


@pytest.fixture
def training_of(trained, tmp_path):
    """Return a function that trains heads on the photos of `trained`, and returns recipe and training."""
    with Features(trained / "run" / "features.h5") as features:
        raw = features.recipe

    def train(*heads, folds=None):
        given = raw | {"run": str(tmp_path / "run"), "heads": list(heads)}
        if folds is not None:
            given |= {"selection": {}}
        recipe = Recipe.parse(given, {"data.folds": folds})
        return recipe, train_heads(recipe)

    return train


def test_seeds_differ_and_the_first_is_the_run_s_own(training_of):
    recipe, training = training_of(DENSE, {"type": "GaussianNB"})
    (spread,) = spread_over_seeds(training.extraction, recipe, 3)
    validation = training["linear"].validation
    assert (spread.name, spread.seeds, spread.n) == ("linear", (0, 1, 2), validation["n"])
    assert spread.log_loss[0] == pytest.approx(validation["log_loss"], rel=1e-4)
    assert len(set(spread.log_loss)) == 3
    assert spread.mean("log_loss") == pytest.approx(np.mean(spread.log_loss))
    assert spread.standard_deviation("log_loss") == pytest.approx(np.std(spread.log_loss, ddof=1))


def test_in_folds_all_photos_are_scored(training_of):
    recipe, training = training_of(DENSE, folds=3)
    (spread,) = spread_over_seeds(training.extraction, recipe, 2)
    assert spread.n == training["linear"].validation["n"] == 24
    assert spread.log_loss[0] == pytest.approx(training["linear"].validation["log_loss"], rel=1e-4)
    curve = curve_of_run(training.extraction, recipe)
    assert (curve.in_folds, curve.n, curve.draws) == (True, 24, 3)


def test_without_dense_heads_seeds_are_refused_before_any_work(trained):
    with Features(trained / "run" / "features.h5") as features:
        recipe = Recipe.parse(features.recipe).with_heads(["GaussianNB"])
    with pytest.raises(RecipeError, match="there are none among GaussianNB"):
        check_seeds(recipe, 5)
    with pytest.raises(RecipeError, match="seeds = 1: a spread needs two"):
        check_seeds(recipe, 1)


def test_the_command_prints_and_writes_the_curve_and_the_spread(trained, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"cache = '{trained / 'cache'}'\nrun = '{tmp_path / 'run'}'\n"
        f"[data]\nroot = '{trained / 'photos'}'\nfolds = 2\n"
        "[base]\nweights = 'random'\nimage_size = 32\nprecision = 'f32'\nbatch_size = 8\n"
        "arguments = { alpha = 0.35 }\n"
        "[[heads]]\ntype = 'dense'\nepochs = 2\n"
    )
    done = run_cli("heads", recipe, "--learning-curve", "--seeds", 2, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["learning_curve"] == json.loads((tmp_path / "run" / "learning_curve.json").read_text())
    assert [one["name"] for one in facts["seeds"]] == ["linear"]
    with Image.open(tmp_path / "run" / "learning_curve.png") as picture:
        assert min(picture.size) > 400
    shown = run_cli("heads", recipe, "--learning-curve", "--seeds", 2).stdout
    for text in ("learning curve of the default head, scored in 2 folds (n = 24)", "Twice as many photos",
                 "over 2 seeds: mean ± standard deviation (n = 24)"):  # fmt: skip
        assert text in shown
