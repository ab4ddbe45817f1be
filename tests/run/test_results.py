"""heads.json: nothing is lost between processes, and nothing that another program wrote is believed."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from featcache.errors import ModelError, StoreError
from featcache.evaluation import full_scores
from featcache.evaluation.choosing import only_class_of
from featcache.model import find_model
from featcache.run.layout import HEADS_FILE, PREDICTIONS_FILE, model_folder
from featcache.run.predictions import HeadPredictions, RunPredictions, ScoredRows
from featcache.run.results import (
    HeadResult,
    TestLooks,
    best_head,
    read_predictions,
    read_results,
    update_results,
)

LABELS = np.array([0, 1, 0, 1, 1, 0])
ROWS = ScoredRows(np.arange(6 * 32, dtype=np.uint8).reshape(6, 32), LABELS)


def probabilities(right):
    """Probabilities of six rows, of which the first `right` are predicted correctly."""
    said = np.where(np.arange(6) < right, LABELS, 1 - LABELS)
    return np.eye(2, dtype=np.float32)[said] * 0.8 + 0.1


def head(run, name, right=4, **scores):
    """A head of the run with its scores; its model is saved."""
    found = probabilities(right)
    measured = full_scores(LABELS, found, found.argmax(axis=1), [0, 1], resamples=10)
    for one, label in zip(measured["per_class"], ("a", "b"), strict=True):
        one["class"] = label
    folder = model_folder(run, name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps({"name": name, "right": right}))
    return HeadResult(name, 0.1, measured | scores, None, folder)


def enter(run, *heads, data="data", rows=ROWS, notes=None):
    made = {}
    for one in heads:
        found = probabilities(round(6 * one.validation["accuracy"]))
        made[one.name] = HeadPredictions(found.argmax(axis=1), found)
    kept = RunPredictions(data, ("a", "b"), rows, made)
    return update_results(run, heads, kept, {"rows": 6}, [].append if notes is None else notes.append)


def change(run, change_facts):
    facts = json.loads((run / HEADS_FILE).read_text())
    change_facts(facts)
    (run / HEADS_FILE).write_text(json.dumps(facts))


# ---- the best --------------------------------------------------------------------------------------------


def test_the_best_has_the_best_metric_then_the_lowest_log_loss_and_none_is_last(tmp_path):
    heads = [
        head(tmp_path, "svc", log_loss=None),
        head(tmp_path, "worse", log_loss=0.4),
        head(tmp_path, "better", log_loss=0.3),
        head(tmp_path, "equal", log_loss=0.3),
        head(tmp_path, "wrong", right=2, log_loss=0.1),
    ]
    assert best_head(heads, "accuracy").name == "better"
    assert best_head([heads[0], heads[4]], "accuracy").name == "svc"
    assert best_head(heads, "log_loss").name == "wrong"
    assert best_head([heads[0], heads[1]], "log_loss").name == "worse", "without log loss it comes last"
    assert best_head([heads[0], head(tmp_path, "lower", right=2, log_loss=None)], "log_loss").name == "svc"


def constant_head(run, name, label=0):
    """A head that predicts one class only, more often right than the others here."""
    said = np.full((6, 2), 0.1)
    said[:, label] = 0.9
    measured = full_scores(LABELS, said, said.argmax(axis=1), [0, 1], resamples=10)
    return replace(head(run, name), validation={**head(run, name).validation, **measured})


def test_a_head_that_predicts_one_class_only_is_best_only_among_such_heads(tmp_path):
    constant, worse = constant_head(tmp_path, "constant", 1), head(tmp_path, "worse", right=2)
    assert constant.validation["accuracy"] > worse.validation["accuracy"]
    assert best_head([constant, worse], "accuracy").name == "worse"
    assert best_head([constant, constant_head(tmp_path, "other", 0)], "accuracy").name == "constant"
    assert [one.to_json()["only_class"] for one in (constant, worse)] == ["1", None]


def test_where_there_is_one_class_only_predicting_it_is_right():
    y = np.zeros(4, int)
    assert only_class_of(full_scores(y, None, y, [0, 1], resamples=10)) is None


def test_every_reader_takes_the_same_best_and_the_file_does_not_name_it(tmp_path):
    results = enter(tmp_path, head(tmp_path, "A", 5), head(tmp_path, "B", 3))
    assert results.best.name == read_results(tmp_path).best.name == "A"
    outside = tmp_path / "other"
    head(outside, "stranger")
    for best in ("../../other/models/stranger", "B", None, 3):
        change(tmp_path, lambda facts, best=best: facts.update(best=best))
        assert find_model(tmp_path) == model_folder(tmp_path, "A")


def test_the_metric_of_the_file_decides_and_files_of_earlier_versions_go_by_accuracy(tmp_path):
    accurate, sure = head(tmp_path, "accurate", 5, log_loss=0.6), head(tmp_path, "sure", 4, log_loss=0.3)
    assert enter(tmp_path, accurate, sure).best.name == "accurate"
    change(tmp_path, lambda facts: facts.pop("metric"))
    assert read_results(tmp_path).best.name == "accurate"
    change(tmp_path, lambda facts: facts.update(metric="log_loss"))
    assert read_results(tmp_path).best.name == "sure"
    change(tmp_path, lambda facts: facts.update(metric="beauty"))
    notes = []
    assert read_results(tmp_path, notes.append) is None
    assert "damaged" in notes[0]


def test_looks_at_test_add_up_while_the_test_photos_are_the_same():
    looks = TestLooks(2, "a") + TestLooks(1, "a")
    assert looks == TestLooks(3, "a")
    assert looks + TestLooks() == looks
    assert looks + TestLooks(0, "b") == looks, "nothing was scored"
    assert looks + TestLooks(1, "b") == TestLooks(1, "b")


def test_looks_at_test_are_kept_in_the_file(tmp_path):
    one = head(tmp_path, "A")
    kept = RunPredictions("data", ("a", "b"), ROWS, {})
    for expected in (1, 2, 3):
        results = update_results(tmp_path, [one], kept, looks=TestLooks(1, "photos"))
        assert results.looks == read_results(tmp_path).looks == TestLooks(expected, "photos")
    assert update_results(tmp_path, [one], replace(kept, data="relabelled")).looks.count == 3
    change(tmp_path, lambda facts: facts["test_looks"].update(count=-1))
    assert read_results(tmp_path) is None


def test_a_path_in_the_file_leads_nowhere(tmp_path):
    enter(tmp_path, head(tmp_path, "A"))
    change(tmp_path, lambda facts: facts["heads"][0].update(model="/etc"))
    assert read_results(tmp_path).best.model == model_folder(tmp_path, "A")


# ---- earlier heads ---------------------------------------------------------------------------------------


def test_heads_on_the_same_data_stay_and_one_of_the_same_name_is_replaced(tmp_path):
    enter(tmp_path, head(tmp_path, "A", 3), head(tmp_path, "B", 4))
    results = enter(tmp_path, head(tmp_path, "a", 5))
    assert [one.name for one in results.heads] == ["B", "a"], "some file systems ignore case"
    assert set(read_predictions(tmp_path).heads) == {"B", "a"}
    notes = []
    results = enter(tmp_path, head(tmp_path, "C"), data="other", notes=notes)
    assert [one.name for one in results.heads] == ["C"]
    assert len(notes) == 1
    assert notes[0].endswith("no longer lists them: B, a")
    assert set(read_predictions(tmp_path).heads) == {"C"}


PROCESS = """
import sys, pathlib
sys.path.insert(0, {tests!r})
from test_results import enter, head
run = pathlib.Path(sys.argv[1])
for number in range(8):
    enter(run, head(run, f"{{sys.argv[2]}}-{{number}}"))
"""


def test_processes_that_train_at_once_lose_no_head(tmp_path):
    code = PROCESS.format(tests=str(__file__).rsplit("/", 1)[0])
    children = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, name], stderr=subprocess.PIPE, text=True)
        for name in ("one", "two", "three")
    ]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    wanted = {f"{name}-{number}" for name in ("one", "two", "three") for number in range(8)}
    assert {one.name for one in read_results(tmp_path).heads} == wanted
    assert set(read_predictions(tmp_path).heads) == wanted


# ---- damage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "harm",
    [
        lambda entry: entry["validation"].pop("log_loss"),
        lambda entry: entry["validation"].update(accuracy=2),
        lambda entry: entry["validation"].update(accuracy="0.9"),
        lambda entry: entry["validation"].update(log_loss=-1.0),
        lambda entry: entry["validation"].update(log_loss=float("nan")),
        lambda entry: entry["validation"].update(confusion=[[1]]),
        lambda entry: entry["validation"].update(per_class=None),
        lambda entry: entry.update(validation=None),
        lambda entry: entry.update(test={}),
        lambda entry: entry.update(name="../../zz"),
        lambda entry: entry.update(name="a\nb"),
        lambda entry: entry.update(name=""),
        lambda entry: entry.update(name=7),
        lambda entry: entry.update(fit_seconds="long"),
        lambda entry: entry.clear(),
    ],
)
def test_a_bad_entry_is_dropped_with_a_note_and_the_others_stay(tmp_path, harm):
    enter(tmp_path, head(tmp_path, "A", 5), head(tmp_path, "B"))
    change(tmp_path, lambda facts: harm(facts["heads"][0]))
    notes = []
    results = enter(tmp_path, head(tmp_path, "C"), notes=notes)
    assert [one.name for one in results.heads] == ["B", "C"]
    assert len(notes) == 1
    assert HEADS_FILE in notes[0]
    assert "\n" not in notes[0]


def test_what_a_reader_leaves_out_it_says(tmp_path):
    enter(tmp_path, head(tmp_path, "A", 5), head(tmp_path, "B"))
    change(tmp_path, lambda facts: facts["heads"][0]["validation"].update(accuracy=2))
    with pytest.warns(UserWarning, match="'A'.*accuracy"):
        assert find_model(tmp_path) == model_folder(tmp_path, "B")


DAMAGED = (b"", b"{", b"[]", b"null", b'{"data": 1, "heads": []}', b"\xff", b"[" * 9999)


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_replaced_with_a_note_and_is_one_line_to_a_reader(tmp_path, content):
    (tmp_path / HEADS_FILE).write_bytes(content)
    with pytest.raises(ModelError, match="damaged") as caught:
        find_model(tmp_path)
    assert "\n" not in str(caught.value)
    notes = []
    assert [one.name for one in enter(tmp_path, head(tmp_path, "A"), notes=notes).heads] == ["A"]
    assert "damaged" in notes[0]


def test_a_file_that_cannot_be_read_is_an_error_and_stays(tmp_path):
    (tmp_path / HEADS_FILE).mkdir()
    with pytest.raises(StoreError, match=r"heads\.json cannot be read"):
        enter(tmp_path, head(tmp_path, "A"))
    (tmp_path / HEADS_FILE).rmdir()
    os.mkfifo(tmp_path / HEADS_FILE)
    with pytest.raises(StoreError, match="not a regular file"):
        read_results(tmp_path)


def test_predictions_of_another_model_are_left_out(tmp_path):
    enter(tmp_path, head(tmp_path, "A"), head(tmp_path, "B"))
    change(tmp_path, lambda facts: facts["heads"][0].update(model_sha256="0" * 64))
    assert set(read_predictions(tmp_path).heads) == {"B"}
    change(tmp_path, lambda facts: facts["heads"].pop(1))
    assert set(read_predictions(tmp_path).heads) == set()
    change(tmp_path, lambda facts: facts.update(data="other"))
    assert read_predictions(tmp_path) is None


def test_damaged_predictions_are_replaced_with_a_note(tmp_path):
    enter(tmp_path, head(tmp_path, "A"))
    (tmp_path / PREDICTIONS_FILE).write_bytes(b"PK")
    assert read_predictions(tmp_path) is None
    notes = []
    enter(tmp_path, head(tmp_path, "B"), notes=notes)
    assert set(read_predictions(tmp_path).heads) == {"B"}
    assert len(notes) == 1


def test_a_model_that_was_changed_is_not_the_one_that_was_scored(tmp_path):
    results = enter(tmp_path, head(tmp_path, "A"))
    assert results["A"].is_saved
    (model_folder(tmp_path, "A") / "model.json").write_text("{}")
    assert not results["A"].is_saved
    assert not head(tmp_path, "A").is_saved, "it was never entered"
