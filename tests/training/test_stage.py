"""Stage 2 as its users see it: which head is best, what is scored on what, written and refused."""

import json
import tomllib

import numpy as np
import pytest
from conftest import TINY_BASE, make_photo, make_photos
from PIL import Image
from sklearn.naive_bayes import GaussianNB

from featcache.errors import FeatcacheError, ModelError, RecipeError, StoreError, TrainingError
from featcache.evaluation import score_head
from featcache.evaluation.choosing import Comparison
from featcache.extraction.stage import extract
from featcache.heads import pooling
from featcache.heads.calibration import calibrated
from featcache.model import Model
from featcache.recipe import Recipe
from featcache.report.tables import best_sentence
from featcache.reporter import SILENT, Reporter
from featcache.run.layout import out_of_fold_file
from featcache.run.results import read_predictions, read_results
from featcache.training import head as training_of_head
from featcache.training import stage, train_heads
from featcache.training.data import comparison_of

LOGISTIC = {"type": "LogisticRegression"}
LINEAR = {"type": "dense", "epochs": 5}
DUMMY = {"type": "DummyClassifier"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photos of two classes that a head can tell apart, and a store that has their features."""
    place = tmp_path_factory.mktemp("train")
    make_photos(place / "photos", per_class=24)
    for photo in (place / "photos" / "dog").iterdir():
        Image.open(photo).point(lambda value: value // 4).save(photo)
    extract(recipe_with(place, [LOGISTIC]))
    return place


def recipe_with(place, heads, run="run", folds=None, **more):
    data = {"root": str(place / "photos"), "split": {"train": 0.6, "validation": 0.2, "test": 0.2}}
    data |= {} if folds is None else {"folds": folds}
    selection = {"method": "validation"} if folds is None else {}  # few photos would be cross-validated
    paths = {"cache": str(place / "cache"), "run": str(place / run)}
    recipe = {"data": data, "base": TINY_BASE, "heads": heads, "selection": selection}
    return Recipe.parse(recipe | paths | more)


@pytest.fixture
def train_on(place, tmp_path):
    """Return a function that trains heads on the module's features, in a run folder of the test's own."""

    def run(*heads, reporter=SILENT, reuse=False, **more):
        recipe = recipe_with(place, list(heads), **{"run": tmp_path / "run"} | more)
        return train_heads(recipe, reporter, reuse=reuse)

    return run


class Listener(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def scored(monkeypatch):
    """List the (head, number of rows) that are predicted, in order."""
    calls, real = [], training_of_head.predictions_of

    def predict(head, X, y):
        calls.append((head, len(X)))
        return real(head, X, y)

    monkeypatch.setattr(training_of_head, "predictions_of", predict)
    return calls


def with_scores(monkeypatch, *scores):
    """Make `full_scores` give these (accuracy, log loss) one after the other."""
    given = iter(scores)
    monkeypatch.setattr(
        training_of_head,
        "full_scores",
        lambda *_, **__: dict(
            zip(("accuracy", "log_loss"), next(given), strict=True), per_class=[], confusion=[]
        ),
    )


# ---- which head is best ----------------------------------------------------------------------------------


def test_the_best_on_validation_and_no_other_is_scored_on_test(train_on, scored):
    result = train_on(DUMMY, LOGISTIC, LINEAR, selection={"metric": "accuracy", "method": "validation"})
    with result.extraction.open() as features:
        rows = {split: len(features[split]) for split in features.splits}
    accuracy = {head.name: head.validation["accuracy"] for head in result.heads}
    assert accuracy[result.best] == max(accuracy.values()) > accuracy["DummyClassifier"]
    assert [head.name for head in result.heads] == ["DummyClassifier", "LogisticRegression", "linear"]
    assert all(head.validation["n"] == rows["validation"] for head in result.heads)
    assert [head.name for head in result.heads if head.test] == [result.best]
    assert result[result.best].test["n"] == rows["test"]
    assert [count for _, count in scored] == 3 * [rows["validation"]] + [rows["test"]]


def test_the_test_split_has_no_say_in_what_is_best(train_on, monkeypatch):
    with_scores(monkeypatch, (0.7, 0.5), (0.8, 0.1), (0.9, 0.9), (0.0, 9.0))
    result = train_on(DUMMY, LOGISTIC, {"type": "GaussianNB"})
    assert result.best == "LogisticRegression"
    assert result["LogisticRegression"].test["accuracy"] == 0.0


def test_among_equals_the_lower_log_loss_is_better_and_none_is_worst(train_on, monkeypatch):
    heads = {"type": "LinearSVC"}, LOGISTIC, {"type": "GaussianNB"}, DUMMY
    with_scores(monkeypatch, (0.9, None), (0.9, 0.4), (0.9, 0.3), (0.8, 0.1), (0.5, 0.5))
    by_accuracy = {"metric": "accuracy", "method": "validation"}
    assert train_on(*heads, selection=by_accuracy).best == "GaussianNB"


def test_without_a_test_split_nothing_is_scored_on_test(place, tmp_path):
    data = {"root": str(place / "photos")}
    result = train_heads(recipe_with(place, [LOGISTIC], run=tmp_path / "run", data=data))
    assert result[result.best].test is None


def test_the_scores_are_those_of_the_head_on_its_own_rows(train_on):
    result = train_on(LOGISTIC)
    with result.extraction.open() as features:
        (X, y), (X_test, y_test) = features["validation"].load(), features["test"].load()
    loaded = Model.load(result["LogisticRegression"].model).head
    assert result["LogisticRegression"].validation["accuracy"] == np.mean(loaded.predict(X) == y)
    assert result["LogisticRegression"].test["accuracy"] == np.mean(loaded.predict(X_test) == y_test)


def test_a_head_never_sees_validation_or_test_rows(train_on, monkeypatch):
    seen, fit = [], GaussianNB.fit

    def watched(head, X, y):
        seen.append(X)
        return fit(head, X, y)

    monkeypatch.setattr(GaussianNB, "fit", watched)
    result = train_on({"type": "GaussianNB"})
    with result.extraction.open() as features:
        assert len(seen) == 1
        assert np.array_equal(seen[0], features["train"].load()[0])


def test_a_head_trained_later_on_the_same_photos_joins_the_others(train_on):
    first = train_on(LOGISTIC, {"type": "DummyClassifier"})
    train_on({"type": "DummyClassifier"})
    written = json.loads((first.extraction.run / "heads.json").read_text())
    assert {head["name"] for head in written["heads"]} == {"LogisticRegression", "DummyClassifier"}
    assert written["best"] == "LogisticRegression"


def test_the_best_is_that_of_the_run_and_not_of_the_heads_trained_last(train_on):
    first = train_on(LOGISTIC)
    later = train_on(DUMMY)
    assert [head.name for head in later.heads] == ["DummyClassifier"]
    assert (later.best, later.to_json()["best"]) == ("LogisticRegression", "LogisticRegression")
    assert later["LogisticRegression"].validation == first["LogisticRegression"].validation
    assert Model.load(later.extraction.run).name == later.best


def test_heads_of_the_run_are_reused_where_settings_seed_and_data_are_the_same(train_on, monkeypatch):
    first = train_on(LINEAR, LOGISTIC)
    fitted, fit = [], training_of_head._fit
    monkeypatch.setattr(training_of_head, "_fit", lambda head, *more: fitted.append(head) or fit(head, *more))
    again = train_on(LINEAR, LOGISTIC, reuse=True)
    assert (fitted, again.to_json()["heads"]) == ([], first.to_json()["heads"])
    assert np.array_equal(again.models["linear"].head.coefs_[0], first.models["linear"].head.coefs_[0])
    train_on(LINEAR | {"epochs": 6}, LOGISTIC, reuse=True)
    assert [type(head).__name__ for head in fitted] == ["DenseHead"]
    train_on(LINEAR, reuse=True, seed=1)
    assert len(fitted) == 2
    model = again["LogisticRegression"].model / "model.json"
    model.write_text(model.read_text().replace("LogisticRegression", "Other"))
    train_on(LOGISTIC, reuse=True)
    assert len(fitted) == 3, "a model that is not the one that was scored is not used"


# ---- what is written -------------------------------------------------------------------------------------


def test_heads_json_says_what_the_result_says(train_on):
    result = train_on(LOGISTIC, LINEAR, {"type": "LinearSVC"})
    written = json.loads((result.extraction.run / "heads.json").read_text())
    assert written.pop("data")
    assert len(written["test_looks"].pop("photos")) == 64
    assert written | {"test_looks": 1} == result.to_json()
    assert set(written) == {"run", "features", "heads", "failed", "best", "metric", "test_looks"}
    assert (written["metric"], written["test_looks"]) == ("log_loss", {"count": 1})
    assert set(written["heads"][0]) == {
        "name",
        "fit_seconds",
        "validation",
        "only_class",
        "test",
        "model",
        "trained_from",
        "model_sha256",
    }
    measured = (
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "log_loss",
        "roc_auc",
        "average_precision",
        "ece",
    )
    scores = {f"{name}{end}" for name in (*measured, "ece") for end in ("", "_low", "_high")}
    assert set(written["heads"][0]["validation"]) == scores | {"n", "confusion", "per_class"}


def test_folds_score_every_photo_of_train_and_validation_once(train_on):
    result = train_on(LOGISTIC, LINEAR, folds=3)
    for head in result.heads:
        scores = head.validation
        assert len(scores["folds"]["accuracy"]) == 3
        assert np.mean(scores["folds"]["accuracy"]) == pytest.approx(scores["folds"]["mean"])
        lines = out_of_fold_file(result.extraction.run, head.name).read_text().splitlines()
        with result.extraction.open() as features:
            known = [path for split in ("train", "validation") for path in features[split].paths]
        assert [line.split(",")[0] for line in lines[1:]] == known
        assert scores["n"] == len(known)
        assert Model.load(head.model).scores["validation"] == scores
    again = train_on({"type": "DummyClassifier"})
    written = json.loads((again.extraction.run / "heads.json").read_text())
    # scores of other photos cannot be compared
    assert [head["name"] for head in written["heads"]] == ["DummyClassifier"]


def test_few_validation_photos_are_not_asked_but_all_photos_in_folds(train_on):
    listener = Listener()
    result = train_on(LOGISTIC, DUMMY, selection={}, reporter=listener)
    with result.extraction.open() as features:
        few = len(features["validation"])
        photos = few + len(features["train"])
        both = zip(features["train"].load(), features["validation"].load(), strict=True)
        X, y = (np.concatenate(arrays) for arrays in both)
    assert any(f"validation has {few} photos" in one and "5-fold" in one for one in listener.notes)
    assert [head.validation["n"] for head in result.heads] == [photos, photos]
    # the head that is saved was trained on all of them
    alone = result.models["LogisticRegression"].head.fit(X, y)
    assert np.array_equal(
        alone.predict_proba(X), Model.load(result["LogisticRegression"].model).head.predict_proba(X)
    )


@pytest.mark.parametrize("what", ["fine-tuning", "calibration", "augmentation"])
def test_where_something_needs_validation_heads_are_compared_on_it(place, what):
    head = LOGISTIC | ({"calibrate": "temperature"} if what == "calibration" else {})
    more = {
        "fine-tuning": {"finetune": {"unfreeze_from": 100}},
        "augmentation": {"augment": {"views": 2, "flip": True}},
    }.get(what, {})
    recipe = recipe_with(place, [head], selection={}, **more)
    with extract(recipe_with(place, [LOGISTIC])).open() as features:
        found = comparison_of(recipe, features)
        assert found.folds is None
        assert "cross-validation is not used" in found.reason
        asked = {"metric": "log_loss", "method": "cross_validation"}
        folds = recipe_with(place, [LOGISTIC], selection=asked)
        assert comparison_of(folds, features) == Comparison(5)


def test_a_head_that_is_named_is_compared_on_the_photos_of_all_heads(place):
    heads = [{"type": "GaussianNB", "calibrate": "temperature"}, LOGISTIC]
    whole = recipe_with(place, heads, selection={"metric": "macro_f1"})
    with extract(recipe_with(place, [LOGISTIC])).open() as features:
        named = comparison_of(whole.with_heads(["LogisticRegression"]), features)
        assert named.folds == comparison_of(whole, features).folds is None
    assert whole.with_heads(["LogisticRegression"]).selection.asks_for_metric
    plain = recipe_with(place, [LOGISTIC, DUMMY], selection={}).with_heads(["DummyClassifier"])
    assert plain.selection.method == "auto"


def test_the_method_does_not_contradict_the_folds(place):
    with pytest.raises(RecipeError, match=r"data\.folds = 3 does not go with selection\.method"):
        recipe_with(place, [LOGISTIC], folds=3, selection={"method": "validation"})


def test_a_head_that_the_given_metric_cannot_compare_is_refused_before_any_photo_is_read(
    train_on, monkeypatch
):
    monkeypatch.setattr(stage, "extract", lambda *_: pytest.fail("photos were read"))
    ridge = {"type": "RidgeClassifier"}
    with pytest.raises(RecipeError, match=r"RidgeClassifier has no probabilities.*'log_loss'"):
        train_on(LOGISTIC, ridge, selection={"metric": "log_loss"})


def test_heads_that_the_default_metric_cannot_compare_come_last_and_this_is_said(train_on):
    ridge, listener = {"type": "RidgeClassifier"}, Listener()
    method = {"method": "validation"}
    result = train_on(ridge, LOGISTIC, reporter=listener, selection=method)
    assert result.best == "LogisticRegression"
    assert any("RidgeClassifier" in note and "come last" in note for note in listener.notes)
    listener = Listener()
    alone = train_on(ridge, reporter=listener, run="other", selection=method)
    assert any("compared by accuracy" in note for note in listener.notes)
    assert (alone.best, alone.to_json()["metric"]) == ("RidgeClassifier", "log_loss")


def test_each_scoring_on_test_is_counted(train_on):
    assert train_on(LOGISTIC, DUMMY).to_json()["test_looks"] == 1
    again = train_on(LOGISTIC)
    assert again.to_json()["test_looks"] == 2
    assert "test was looked at twice" in best_sentence(again)
    assert train_on(LOGISTIC, reuse=True).to_json()["test_looks"] == 2, "nothing was scored"


def test_what_speaks_against_the_best_head_stands_beside_its_name(train_on):
    first = best_sentence(train_on(DUMMY)).splitlines()[0]
    assert first.startswith("Best on validation: DummyClassifier, but it predicts one class only: ")


CALIBRATED = {"type": "GaussianNB", "name": "calibrated", "calibrate": "temperature"}  # overconfident without


def test_calibrated_heads_are_saved_calibrated(train_on):
    plain, honest = train_on({"type": "GaussianNB"}, CALIBRATED).heads
    assert honest.validation["log_loss"] < plain.validation["log_loss"]
    assert Model.load(honest.model).scores["validation"] == honest.validation


def test_a_calibrated_head_is_scored_on_photos_that_its_calibration_did_not_see(train_on, monkeypatch):
    seen = []

    def watched(head, X, y):
        seen.append(X)
        return calibrated(head, X, y)

    monkeypatch.setattr(training_of_head, "calibrated", watched)
    result = train_on(CALIBRATED)
    with result.extraction.open() as features:
        X, y = features["validation"].load()
    head = result["calibrated"]
    assert head.validation["calibration"] == {"scored_on": "held-out folds", "folds": len(seen) - 1}
    assert sum(len(X) - len(part) for part in seen[1:]) == len(X)
    # the saved model is calibrated on all of them, and would score better on them
    assert len(seen[0]) == len(X)
    on_the_same = score_head(result.models["calibrated"].head, X, y)
    assert head.validation["log_loss"] > on_the_same["log_loss"]


def test_where_cross_fitting_is_impossible_that_is_said(train_on, monkeypatch):
    def fails(*_):
        raise TrainingError("too few")

    listener = Listener()
    monkeypatch.setattr(training_of_head, "cross_fit", fails)
    result = train_on(CALIBRATED, reporter=listener)
    assert result["calibrated"].validation["calibration"] == {"scored_on": "the photos of the calibration"}
    assert any("'calibrated'" in note and "too few" in note for note in listener.notes)


def test_calibration_does_not_go_with_folds(train_on):
    with pytest.raises(RecipeError, match=r"calibrate.*folds"):
        train_on({**LOGISTIC, "calibrate": "temperature"}, folds=3)


def test_principal_components_go_before_any_head(train_on):
    result = train_on({**LOGISTIC, "pca": 4}, {**LINEAR, "pca": 4})
    for head in result.heads:
        assert Model.load(head.model).predict_features(np.zeros((1, 1280), np.float32))[0].label
    assert Model.load(result.heads[0].model).head["classifier"].coef_.shape == (1, 4)


def test_every_head_is_a_model_that_predicts_the_same_after_loading(train_on):
    result = train_on(LOGISTIC, LINEAR, {"type": "dense", "units": [4], "epochs": 2}, {"type": "LinearSVC"})
    with result.extraction.open() as features:
        X, y = features["validation"].load()
    for head in result.heads:
        model = Model.load(head.model)
        assert (model.name, model.classes) == (head.name, ("cat", "dog"))
        assert model.scores == {"validation": head.validation, "test": head.test}
        labels = [one.label for one in model.predict_features(X)]
        right = np.mean([label == model.classes[number] for label, number in zip(labels, y, strict=True)])
        assert right == head.validation["accuracy"]
    assert Model.load(result.extraction.run).name == result.best


def test_the_second_time_nothing_is_computed_and_the_scores_are_the_same(train_on, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network ran")

    monkeypatch.setattr("featcache.bases.base.Base.features", refuse)
    first, second = train_on(LOGISTIC, LINEAR), train_on(LOGISTIC, LINEAR)
    assert (first.extraction.computed, second.extraction.computed) == (0, 0)
    assert [head.validation for head in first.heads] == [head.validation for head in second.heads]


def test_a_new_photo_is_computed_and_learned_from(place, tmp_path):
    recipe = recipe_with(place, [LOGISTIC], run=tmp_path / "run")
    before = train_heads(recipe).extraction
    new = place / "photos" / "cat" / "new.png"
    make_photo(new, seed=99_999)
    try:
        after = train_heads(recipe).extraction
    finally:
        new.unlink()
    assert (after.computed, after.rows) == (1, before.rows + 1)


def test_the_seed_decides_what_a_dense_head_becomes(train_on):
    def weights(seed):
        return Model.load(train_on(LINEAR, seed=seed)["linear"].model).head.coefs_[0]

    assert np.array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


def test_every_heads_predictions_are_kept_with_the_photos_digests(train_on, tmp_path):
    result = train_on(LOGISTIC, {"type": "LinearSVC"})
    kept = read_predictions(tmp_path / "run")
    with result.extraction.open() as features:
        X, y = features["validation"].load()
        assert np.array_equal(kept.rows.digests, features["validation"].digests)
    assert np.array_equal(kept.rows.labels, y)
    assert kept.classes == ("cat", "dog")
    head = result.models["LogisticRegression"].head
    assert np.allclose(kept.heads["LogisticRegression"].probabilities, head.predict_proba(X), atol=1e-6)
    assert kept.heads["LinearSVC"].probabilities is None
    for head in result.heads:
        assert np.mean(kept.heads[head.name].predicted == y) == head.validation["accuracy"]
    train_on(DUMMY)
    assert set(read_predictions(tmp_path / "run").heads) == {
        "LogisticRegression",
        "LinearSVC",
        "DummyClassifier",
    }


def test_with_folds_the_predictions_are_those_out_of_fold(train_on, tmp_path):
    result = train_on(LOGISTIC, folds=3)
    kept = read_predictions(tmp_path / "run")
    assert len(kept.rows.labels) == result["LogisticRegression"].validation["n"]
    right = kept.heads["LogisticRegression"].predicted == kept.rows.labels
    by_fold = [right[kept.rows.folds == fold].mean() for fold in range(3)]
    assert by_fold == result["LogisticRegression"].validation["folds"]["accuracy"]
    train_on(LOGISTIC)
    assert read_predictions(tmp_path / "run").rows.folds is None
    assert not out_of_fold_file(tmp_path / "run", "LogisticRegression").exists(), (
        "it belongs to an earlier head"
    )


# ---- class weights by name -------------------------------------------------------------------------------

WEIGHED = {
    "dense": {"type": "dense", "epochs": 5, "name": "head"},
    "LogisticRegression": {"type": "LogisticRegression", "C": 1e-3, "name": "head"},
    "RandomForestClassifier": {
        "type": "RandomForestClassifier",
        "n_estimators": 10,
        "max_depth": 1,
        "name": "head",
    },
}


@pytest.mark.parametrize("kind", WEIGHED)
def test_class_weights_go_by_the_names_of_the_classes(train_on, kind):
    def dogs(weights):
        """Train with class weights as a TOML recipe says them; return the mean probability of "dog"."""
        said = tomllib.loads(f"class_weight = {weights}")
        result = train_on(WEIGHED[kind] | said)
        with result.extraction.open() as features:
            X, _ = features["validation"].load()
        return np.mean(
            [one.probabilities["dog"] for one in Model.load(result["head"].model).predict_features(X)]
        )

    light, even, heavy = (dogs(f"{{ cat = 1.0, dog = {weight} }}") for weight in (0.01, 1.0, 100.0))
    assert light < even < heavy
    assert dogs('"balanced"') == pytest.approx(even, abs=0.2)


@pytest.mark.parametrize("kind", WEIGHED)
def test_a_weight_for_a_class_that_is_not_there_is_refused(train_on, kind):
    with pytest.raises(RecipeError, match=r"'head'.*'dgo'.*cat, dog.*Did you mean 'dog'\?"):
        train_on(WEIGHED[kind] | {"class_weight": {"cat": 1.0, "dgo": 2.0}})


def test_a_weight_that_is_no_number_is_refused(train_on):
    for kind in ("dense", "LogisticRegression"):
        with pytest.raises(FeatcacheError, match=r"\bhead\b.*heavy"):
            train_on(WEIGHED[kind] | {"class_weight": {"cat": "heavy", "dog": 1.0}})


# ---- what cannot be trained ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        {"type": "NuSVC", "nu": 1.0},
        {"type": "CalibratedClassifierCV", "cv": 1000},
        {"type": "LinearDiscriminantAnalysis", "solver": "svd", "shrinkage": "auto"},
        {"type": "KNeighborsClassifier", "n_neighbors": 1000},
        {"type": "RadiusNeighborsClassifier", "radius": 1e-9},
        {"type": "dense", "units": [4], "learning_rate": 1e30},
    ],
    ids=lambda head: head["type"],
)
def test_a_head_that_cannot_be_trained_is_named(train_on, head):
    training = train_on(LOGISTIC, head | {"name": "mine"})
    assert [failure.name for failure in training.failed] == ["mine"]
    assert "\n" not in training.failed[0].reason
    with pytest.raises(TrainingError, match="'mine'"):
        training["mine"]


TOO_MANY = {"type": "KNeighborsClassifier", "n_neighbors": 1000}


def test_a_head_that_cannot_be_trained_does_not_lose_the_others(train_on, tmp_path):
    training = train_on(LOGISTIC, TOO_MANY | {"name": "one"}, TOO_MANY | {"name": "two"}, DUMMY)
    results = read_results(tmp_path / "run")
    for found in (training, results):
        assert [head.name for head in found.heads] == ["LogisticRegression", "DummyClassifier"]
        assert [failure.name for failure in found.failed] == ["one", "two"]
    assert Model.load(tmp_path / "run").name == "LogisticRegression"
    assert "n_neighbors" in training.to_json()["failed"][0]["reason"]
    with pytest.raises(TrainingError, match="1 of 1 heads could not be trained: KNeighborsClassifier: "):
        train_on(TOO_MANY)


def test_a_failure_is_forgotten_when_the_head_is_trained(train_on, tmp_path):
    train_on(LOGISTIC, TOO_MANY | {"name": "near"})
    train_on(TOO_MANY | {"name": "near", "n_neighbors": 3})
    results = read_results(tmp_path / "run")
    assert {head.name for head in results.heads} == {"LogisticRegression", "near"}
    assert results.failed == ()


@pytest.mark.parametrize("step", ["scored_on_test", "save"])
def test_a_head_that_fails_after_its_training_does_not_lose_the_others(train_on, monkeypatch, step):
    """The first of two heads cannot predict the test photos, or cannot be saved."""
    real = {"scored_on_test": stage.scored_on_test, "save": Model.save}[step]

    def fail(one, *arguments):
        if (one.name if step == "save" else one.result.name) == "LogisticRegression":
            raise (ModelError if step == "save" else TrainingError)("it cannot")
        return real(one, *arguments)

    monkeypatch.setattr(*((Model, "save") if step == "save" else (stage, "scored_on_test")), fail)
    training = train_on(LOGISTIC, {"type": "GaussianNB"})
    assert [failure.name for failure in training.failed] == ["LogisticRegression"]
    assert training.best == "GaussianNB"
    assert Model.load(training["GaussianNB"].model).name == "GaussianNB"


def test_heads_without_enough_memory_do_not_lose_the_others(train_on, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(GaussianNB, "fit", no_memory)
    training = train_on(LOGISTIC, {"type": "GaussianNB"})
    assert [head.name for head in training.heads] == ["LogisticRegression"]
    assert training.failed[0].reason.startswith("out of memory")


def test_a_weight_of_an_unknown_class_is_found_before_any_head_is_trained(train_on, tmp_path):
    with pytest.raises(RecipeError, match="class_weight names 'horse'"):
        train_on(LOGISTIC, LOGISTIC | {"name": "weighted", "class_weight": {"horse": 2.0}})
    assert read_results(tmp_path / "run") is None


@pytest.mark.parametrize("broken", ["full_scores", "update_results", "pool"])
def test_an_error_of_our_own_is_not_blamed_on_the_head(train_on, monkeypatch, broken):
    def bug(*_, **__):
        return {} + 1

    place = {"full_scores": training_of_head, "update_results": stage, "pool": pooling}[broken]
    monkeypatch.setattr(place, broken, bug)
    # the function above is not of the package, so that for Pool the frame of its own method tells it apart
    with pytest.raises(TypeError, match="unsupported operand"):
        train_on(LOGISTIC)


def test_a_run_folder_that_cannot_hold_models_is_refused(train_on, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "models").touch()
    with pytest.raises(StoreError, match="models"):
        train_on(LOGISTIC, run=tmp_path / "taken")


@pytest.mark.parametrize(
    ("head", "named"),
    [
        ({"type": "LogisticRegresion"}, "'LogisticRegression'"),
        ({"type": "Dense"}, "'dense'"),
        ({"type": "SVC", "kernal": "rbf"}, "'kernel'"),
        ({"type": "SVC", "C": -1.0}, "C"),
        ({"type": "dense", "unit": [4]}, "'units'"),
        ({"type": "dense", "dropout": 1.5}, "dropout"),
        ({"type": "dense", "optimizer": "adamw"}, "'adam'"),
    ],
)
def test_a_head_that_cannot_be_is_refused_before_any_photo_is_read(train_on, monkeypatch, head, named):
    def refuse(*_):
        raise AssertionError("photos were read")

    monkeypatch.setattr("featcache.extraction.stage.find_photos", refuse)
    with pytest.raises(RecipeError, match=named) as caught:
        train_on(LOGISTIC, head)
    assert "head " in str(caught.value)
