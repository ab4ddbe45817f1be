"""A model is scored on photos that it has not seen, and what is not scored is said."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import make_photo, run_cli
from PIL import Image

import featcache as fc
from featcache.errors import DataError
from featcache.evaluation import full_scores
from featcache.files import file_sha256
from featcache.model import Model
from featcache.store.feature_file import Features


@pytest.fixture(scope="module")
def model(trained):
    return Model.load(trained / "run" / "models" / "LogisticRegression")


@pytest.fixture
def new(tmp_path):
    """Photos that no model was trained on: 12 in two classes."""
    for number in range(12):
        make_photo(tmp_path / "new" / ("cat", "dog")[number % 2] / f"{number}.png", 5000 + number)
    return tmp_path / "new"


def test_scores_are_those_of_the_predictions(model, new):
    found = fc.evaluate(model, new)
    said = {one.path: one for one in model.predict(new)}
    labels = np.array([path.split("/")[-2] == "dog" for path in said], int)
    predicted = np.array([one.label == "dog" for one in said.values()], int)
    shares = np.array([list(one.probabilities.values()) for one in said.values()], np.float32)
    expected = full_scores(labels, shares, predicted, [0, 1])
    assert set(found.paths) == set(said)
    for name in ("n", "accuracy", "accuracy_low", "balanced_accuracy", "confusion"):
        assert found.scores[name] == expected[name]
    for name in ("log_loss", "roc_auc", "ece"):
        assert found.scores[name] == pytest.approx(expected[name], abs=1e-5)
    assert [one["class"] for one in found.scores["per_class"]] == ["cat", "dog"]
    wrong = {path for path, one in said.items() if one.label != path.split("/")[-2]}
    assert {one.path for one in found.mistakes} == wrong
    confidences = [one.probability for one in found.mistakes]
    assert confidences == sorted(confidences, reverse=True)
    assert (found.trained_on, found.chosen_on, found.copies, found.failed) == (0, 0, 0, ())


def test_photos_that_it_was_trained_on_are_left_out_and_those_it_was_chosen_on_are_counted(trained, model):
    with Features(trained / "run" / "features.h5") as features:
        rows = {split: len(features[split]) for split in features.splits}
        train = set(features["train"].paths)
    found = fc.evaluate(trained / "run" / "models" / "LogisticRegression", trained / "photos")
    assert (found.trained_on, found.chosen_on) == (rows["train"], rows["validation"])
    assert found.scores["n"] == rows["validation"]
    assert not train & set(found.paths)


def test_a_photo_that_it_was_trained_on_is_known_under_any_name(trained, model, new):
    with Features(trained / "run" / "features.h5") as features:
        photo = features["train"].paths[0]
    shutil.copy(photo, new / "dog" / "renamed.png")
    found = fc.evaluate(model, new)
    assert (found.trained_on, found.scores["n"]) == (1, 12)


def test_where_all_photos_were_trained_on_there_is_nothing_to_score(trained, model, tmp_path):
    with Features(trained / "run" / "features.h5") as features:
        for path in features["train"].paths[:2]:
            (tmp_path / "cat").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "cat")
    with pytest.raises(DataError, match=r"2 are photos that the model was trained on\. Give labelled photos"):
        fc.evaluate(model, tmp_path)


def test_a_model_that_does_not_know_its_photos_says_so(model, new, trained, tmp_path):
    old = Model(model.name, model.classes, model.settings, model.spec, model.head, model.scores, model.cache)
    found = fc.evaluate(old, new)
    assert (found.trained_on, found.chosen_on, found.scores["n"]) == (None, None, 12)
    old.save(tmp_path / "old")
    shown = run_cli("evaluate", tmp_path / "old", new).stdout
    assert "does not know which photos it was trained on" in shown


def test_copies_count_once_and_equal_photos_of_two_labels_not_at_all(model, new):
    shutil.copy(new / "cat" / "0.png", new / "cat" / "copy.png")
    shutil.copy(new / "cat" / "2.png", new / "dog" / "copy.png")
    found = fc.evaluate(model, new)
    assert (found.copies, len(found.two_labels), found.scores["n"]) == (1, 2, 11)
    assert {path.split("/")[-1] for path in found.two_labels} == {"2.png", "copy.png"}


def test_broken_photos_are_listed_and_the_others_are_scored(model, new):
    (new / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (new / "cat" / "empty.jpg").touch()
    found = fc.evaluate(model, new)
    assert found.scores["n"] == 12
    assert sorted(path.split("/")[-1] for path, _ in found.failed) == ["broken.jpg", "empty.jpg"]


def test_where_no_photo_can_be_read_the_first_reason_is_given(model, tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "text.jpg").write_text("no photo")
    with pytest.raises(DataError, match=r"1 cannot be read, the first is .*text\.jpg: "):
        fc.evaluate(model, tmp_path)


def test_a_manifest_and_a_head_without_probabilities(trained, new):
    lines = [f"{path},{path.parent.name}" for path in sorted(new.glob("*/*"))]
    (new / "list.csv").write_text("\n".join(["path,label", *lines]))
    model = Model.load(trained / "run" / "models" / "LogisticRegression")
    without = _Decisions(model.head)
    bare = Model("bare", model.classes, model.settings, model.spec, without, {}, model.cache, model.photos)
    found = fc.evaluate(bare, new / "list.csv")
    assert found.scores["n"] == 12
    assert found.scores["log_loss"] is None
    assert found.scores["roc_auc"] is not None
    assert list(found.reliability) == []
    assert all(one.probability is None for one in found.mistakes)


def test_weights_and_groups_of_a_manifest_are_used(model, new):
    paths = sorted(new.glob("*/*"))
    plain = fc.evaluate(model, new)
    right = {path: plain.labels[row] == plain.predicted[row] for row, path in enumerate(plain.paths)}
    weights = [0 if number == 0 else 1 + number for number in range(len(paths))]
    lines = [f"{path},{path.parent.name},{weight},g{number // 4}" for number, (path, weight) in
             enumerate(zip(paths, weights, strict=True))]  # fmt: skip
    (new / "list.csv").write_text("\n".join(["path,label,weight,group", *lines]))
    found = fc.evaluate(model, new / "list.csv")
    assert found.scores["n"] == len(paths) - 1
    expected = np.average([right[str(path)] for path in paths], weights=weights)
    assert found.scores["accuracy"] == pytest.approx(expected)
    assert found.scores["accuracy_high"] - found.scores["accuracy_low"] > 0
    alone = [line.rsplit(",", 1)[0] for line in lines]
    (new / "alone.csv").write_text("\n".join(["path,label,weight", *alone]))
    assert fc.evaluate(model, new / "alone.csv").scores["accuracy_low"] != found.scores["accuracy_low"]


class _Decisions:
    """A head with decision values and no probabilities."""

    def __init__(self, head):
        self.classes_, self.decision_function, self.predict = (
            head.classes_,
            head.decision_function,
            head.predict,
        )


# ---- the command -----------------------------------------------------------------------------------------


def test_the_command_prints_scores_and_writes_files(trained, new, tmp_path):
    folder = tmp_path / "evaluated"
    done = run_cli("evaluate", trained / "run", new, "--output", folder, "--grid")
    assert done.returncode == 0, done.stderr
    for text in (
        "accuracy",
        "log loss",
        "ROC AUC",
        "95% interval",
        "scores by class",
        "confusion",
        "reliability",
    ):
        assert text in done.stdout
    facts = json.loads((folder / "evaluation.json").read_text())
    assert facts["scores"]["n"] == 12
    with (folder / "mistakes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [one["path"] for one in facts["mistakes"]]
    assert all(row["label"] != row["predicted"] for row in rows)
    for name in ("reliability.png", "mistakes.png") if rows else ("reliability.png",):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 400
        assert str(folder / name) in done.stdout


def test_json_of_a_packed_model(trained, new, tmp_path):
    Model.load(trained / "run").pack(tmp_path / "model.zip")
    before = {path: file_sha256(path) for path in new.rglob("*.png")}
    done = run_cli("evaluate", tmp_path / "model.zip", new, "--json")
    facts = json.loads(done.stdout)
    assert set(facts) == {
        *("model", "source", "scores", "reliability", "trained_on", "chosen_on", "copies", "two_labels"),
        *("unknown", "failed", "mistakes"),
    }
    assert sum(map(sum, facts["scores"]["confusion"])) == 12
    assert before == {path: file_sha256(path) for path in new.rglob("*.png")}


def test_a_mistaken_call_is_one_line(trained, new, tmp_path):
    done = run_cli("evaluate", trained / "run", tmp_path / "gone")
    assert done.returncode == 1
    assert "gone does not exist" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert run_cli("evaluate", trained / "run", new, "--grid").returncode == 2
