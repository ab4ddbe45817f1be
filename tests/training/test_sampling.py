"""Weights and groups of photos on their way from a manifest to heads and scores."""

import numpy as np
import pytest
from conftest import TINY_BASE, make_photos
from PIL import Image

from featcache.errors import TrainingError
from featcache.evaluation import full_scores
from featcache.extraction.stage import extract
from featcache.recipe import Recipe
from featcache.reporter import Reporter
from featcache.run.results import read_predictions
from featcache.training import train_heads
from featcache.training.data import TrainingData

LOGISTIC = {"type": "LogisticRegression"}
NEIGHBORS = {"type": "KNeighborsClassifier"}
DENSE = {"type": "dense", "epochs": 3, "early_stopping": False}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """48 photos of two classes in bursts of three, half of them relabelled by chance, with their features."""
    place = tmp_path_factory.mktemp("sampling")
    make_photos(place / "photos", per_class=24)
    for photo in (place / "photos" / "dog").iterdir():
        Image.open(photo).point(lambda value: value // 4).save(photo)
    extract(recipe_of(place, "path,label", lambda n: ""))
    return place


def recipe_of(place, header, columns, heads=(LOGISTIC,), run="run", **data) -> Recipe:
    files = sorted((place / "photos").rglob("*.png"))
    rng = np.random.default_rng(0)
    lines = [f"{file},{rng.choice([file.parent.name, 'cat'])}{columns(n)}" for n, file in enumerate(files)]
    (place / f"{run}.csv").write_text("\n".join([header, *lines]))
    settings = {
        "manifest": str(place / f"{run}.csv"),
        "split": {"train": 0.5, "validation": 0.3, "test": 0.2},
    }
    return Recipe.parse(
        {
            "data": settings | data,
            "base": TINY_BASE,
            "heads": list(heads),
            "selection": {} if "folds" in data else {"method": "validation"},
            "cache": str(place / "cache"),
            "run": str(place / run),
        }
    )


def weight(n: int) -> float:
    return [0.25, 1.0, 4.0][n % 3] + n / 100


def weighted_and_grouped(place, **more) -> Recipe:
    return recipe_of(
        place, "path,label,group,weight", lambda n: f",burst{n // 3},{weight(n)}", run="both", **more
    )


class Listener(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_heads_are_trained_and_scored_with_weights_and_groups(place):
    recipe, listener = weighted_and_grouped(place, heads=[LOGISTIC, NEIGHBORS, DENSE]), Listener()
    result = train_heads(recipe, listener)
    assert [note for note in listener.notes if "sample weights" in note] == [
        "head 'KNeighborsClassifier': KNeighborsClassifier takes no sample weights; it is trained without "
        "the weights of the photos, and scored with them"
    ]
    with result.extraction.open() as features:
        train, validation = features["train"], features["validation"]
        groups, weights = validation.groups, validation.weights
        X, y = train.load()
        alone = result.models["LogisticRegression"].head
        again = type(alone)(alone.steps).fit(
            X, y, scale__sample_weight=train.weights, classifier__sample_weight=train.weights
        )
        held = validation.load()
        np.testing.assert_allclose(alone.predict_proba(held[0]), again.predict_proba(held[0]), atol=1e-6)
        dense = result.models["linear"].head
        assert dense.history_["val_loss"][-1] == pytest.approx(
            result["linear"].validation["log_loss"], rel=1e-4
        )
    for name in result.models:
        scores = result[name].validation
        assert (scores["n"], scores["groups"], scores["weighted"]) == (
            len(held[1]),
            len(set(groups)),
            True,
        )
        head = result.models[name].head
        wanted = np.average(head.predict(held[0]) == held[1], weights=weights)
        assert scores["accuracy"] == pytest.approx(wanted)
    assert result[result.best].test["weighted"] is True
    rows = read_predictions(recipe.run).rows
    assert (rows.weights.tolist(), rows.groups.tolist()) == (weights.tolist(), groups.tolist())


def test_folds_keep_groups_together_and_use_weights(place):
    recipe = weighted_and_grouped(place, heads=[LOGISTIC, DENSE], folds=3)
    result = train_heads(recipe)
    kept = read_predictions(recipe.run)
    for group in set(kept.rows.groups.tolist()):
        assert len(set(kept.rows.folds[kept.rows.groups == group].tolist())) == 1
    head = kept.heads["LogisticRegression"]
    wanted = full_scores(
        kept.rows.labels, None, head.predicted, [0, 1], weights=kept.rows.weights, groups=kept.rows.groups
    )
    scores = result["LogisticRegression"].validation
    for name in ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "groups"):
        assert scores[name] == pytest.approx(wanted[name])


def test_more_folds_than_groups_are_refused(place):
    with pytest.raises(TrainingError, match=r"groups of photos for 40 folds"):
        train_heads(weighted_and_grouped(place, folds=40))


def test_a_calibration_is_cross_fitted_over_groups(place):
    recipe = weighted_and_grouped(place, heads=[{**LOGISTIC, "calibrate": "temperature", "C": 100.0}])
    data = TrainingData(extract(recipe), recipe)
    folds, groups = data.draw_folds(data.calibration_folds), data.scored_sampling.groups
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    assert train_heads(recipe)["LogisticRegression"].validation["weighted"] is True


def test_weights_and_groups_are_part_of_the_data_that_scores_are_compared_on(place):
    def fingerprint(header, columns, run):
        recipe = recipe_of(
            place, header, columns, run=run, split={"train": 0.5, "validation": 0.5, "test": 0.0}
        )
        with extract(recipe).open() as features:
            from featcache.training import fingerprint_of

            return fingerprint_of(features)

    plain = fingerprint("path,label", lambda n: "", "a")
    assert fingerprint("path,label,weight", lambda n: ",1", "b") == plain
    assert fingerprint("path,label,weight", lambda n: f",{weight(n)}", "c") != plain
    other = fingerprint("path,label,weight", lambda n: f",{weight(n + 1)}", "d")
    assert other not in (plain, fingerprint("path,label,weight", lambda n: f",{weight(n)}", "e"))
