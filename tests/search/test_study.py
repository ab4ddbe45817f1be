"""The journal as its users see it: every trial once, whoever is killed and whoever helps."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from featcache.errors import StoreError
from featcache.recipe import Recipe
from featcache.search.journal import outcome_of
from featcache.search.space import SearchSpace
from featcache.search.study import SMALL_BATCH, Study, StudySettings, batch_size
from featcache.search.trial import Outcome, pack

SPACE = {
    "log": {"type": "LogisticRegression", "C": {"low": 1e-3, "high": 10.0, "log": True}},
    "nb": {"type": "GaussianNB", "var_smoothing": [1e-9, 1e-6, 1e-3]},
}


def recipe_of(**sweep):
    return Recipe.parse(
        {
            "data": {"root": "photos"},
            "sweep": {"space": SPACE, "sampler": "tpe", "metric": "accuracy"} | sweep,
        }
    )


def study_in(folder, total=40, data="data", **sweep):
    recipe = recipe_of(**sweep)
    return Study(folder, StudySettings.of(recipe, data), SearchSpace(recipe.sweep.space), total)


def score(asked):
    """A made-up score, so that the sampler has something to learn."""
    value = 1.0 / (1.0 + asked.settings.parameters.get("C", 5.0))
    accuracy = {"accuracy": value, "accuracy_low": 0.0, "accuracy_high": 1.0}
    return Outcome(value=value, scores={"n": 2, "log_loss": None, **accuracy}, correct=pack(np.array([1, 0])))


def work(study, most=None):
    """Carry out trials until there are no more, or `most` of them are told."""
    told = 0
    while batch := study.ask():
        for asked in batch:
            if told == most:
                return
            study.tell(asked.number, score(asked))
            told += 1


def params_of(study):
    return [dict(trial.params) for trial in study.finished]


def whole(folder, **more):
    with study_in(folder, **more) as study:
        work(study)
        return params_of(study)


# ---- what is drawn ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_draws_the_same_and_another_one_something_else(tmp_path, sampler):
    first, second, other = (
        whole(tmp_path / name, sampler=sampler, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert len(first) == 40
    assert first == second
    assert first != other


def test_no_two_trials_are_the_same(tmp_path):
    drawn = whole(tmp_path)
    assert len({json.dumps(params, sort_keys=True) for params in drawn}) == len(drawn)
    assert sum(params["head"] == "nb" for params in drawn) <= 3


def test_a_finite_space_is_tried_out_to_the_last_head(tmp_path):
    few = {"nb": SPACE["nb"], "log": {"type": "LogisticRegression", "C": [0.1, 1.0]}}
    for sampler in ("tpe", "random", "grid"):
        drawn = whole(tmp_path / sampler, total=5, space=few, sampler=sampler)
        assert len({json.dumps(params, sort_keys=True) for params in drawn}) == 5


def test_tpe_gets_several_batches_and_the_others_large_ones():
    assert [batch_size("tpe", total) for total in (5, 50, 100, 200, 1000)] == [16, 16, 25, 50, 64]
    assert batch_size("random", 5) == batch_size("grid", 1000) == 64


def test_tpe_learns_from_the_trials_before(tmp_path):
    drawn = [params["log.C"] for params in whole(tmp_path, total=48) if params["head"] == "log"]
    first, last = drawn[: len(drawn) // 3], drawn[-len(drawn) // 3 :]
    assert sorted(last)[len(last) // 2] < sorted(first)[len(first) // 2]


# ---- ended and begun again -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return whole(tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("told", [0, 7, 16, 39])
def test_a_study_that_was_left_goes_on_as_if_it_had_not_been(tmp_path, reference, told):
    with study_in(tmp_path / "left") as study:
        work(study, most=told)
        assert len(study.finished) == told
    with study_in(tmp_path / "left") as study:
        work(study)
        assert study.is_complete
        assert params_of(study) == reference


def test_more_trials_are_added_to_those_that_are_there(tmp_path):
    first = whole(tmp_path, total=10)
    more = whole(tmp_path, total=30)
    assert (len(first), len(more)) == (10, 30)
    assert more[:10] == first


def test_trials_of_a_living_worker_are_not_taken(tmp_path):
    with study_in(tmp_path) as one, study_in(tmp_path) as other:
        mine = [asked.number for asked in one.ask()]
        theirs = [asked.number for asked in other.ask()]
        assert mine == list(range(SMALL_BATCH))
        assert not set(mine) & set(theirs)
        rest = [asked.number for asked in one.ask()]
        assert sorted(mine + theirs + rest) == list(range(40))
        assert other.ask() == one.ask() == []
        assert not other.is_complete
        one.__exit__()
        assert [asked.number for asked in other.ask()] == sorted(mine + rest)


def test_trials_that_are_told_while_their_worker_is_looked_for_are_not_taken(tmp_path, monkeypatch):
    one = study_in(tmp_path)
    mine = one.ask()
    with study_in(tmp_path) as other:
        really = other._lives

        def ends_just_before(worker):
            for asked in mine:
                one.tell(asked.number, score(asked))
            one.__exit__()
            return really(worker)

        monkeypatch.setattr(other, "_lives", ends_just_before)
        assert not {asked.number for asked in other.ask()} & {asked.number for asked in mine}


def test_other_settings_are_another_study_in_the_same_journal(tmp_path):
    first = whole(tmp_path)
    for change in ({"data": "other"}, {"seed": 5}, {"metric": "roc_auc"}, {"sampler": "random"}):
        with study_in(tmp_path, **change) as study:
            assert study.others
            assert study.finished == []
    with study_in(tmp_path) as study:
        assert not study.others
        assert params_of(study) == first


# What is killed is a real process; the trials in it do nothing but take a moment.
CHILD = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_study import score, study_in
with study_in(Path(sys.argv[1]), total=int(sys.argv[2]), sampler="random") as study:
    while not study.is_complete:
        for asked in study.ask():
            time.sleep(0.001)
            study.tell(asked.number, score(asked))
"""


def start_child(folder, total):
    code = CHILD.format(tests=str(__file__).rsplit("/", 1)[0])
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(total)], stderr=subprocess.PIPE, text=True
    )


def lines_of(folder):
    journal = folder / "journal.log"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def finished_once(folder):
    """Return how often each trial was finished, as the journal's lines say."""
    counts = {}
    for line in (folder / "journal.log").read_text().splitlines():
        entry = json.loads(line)
        if "state" in entry and "trial_id" in entry:
            counts[entry["trial_id"]] = counts.get(entry["trial_id"], 0) + 1
    return counts


def test_killed_at_several_moments_every_trial_is_finished_once(tmp_path):
    total, told = 100, []
    for growth in (3, 70, 60):  # while asking, while telling, with some taken over
        before = lines_of(tmp_path)
        child = start_child(tmp_path, total)
        while child.poll() is None and lines_of(tmp_path) < before + growth:
            time.sleep(0.0005)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert child.returncode == -signal.SIGKILL, "the child ended before it was killed"
        told.append(len(finished_once(tmp_path)))
    assert told == sorted(told)
    assert 0 < told[-1] < total
    child = start_child(tmp_path, total)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert finished_once(tmp_path) == dict.fromkeys(range(total), 1)
    reference = whole(tmp_path / "reference", total=total, sampler="random")
    with study_in(tmp_path, total=total, sampler="random") as study:
        assert params_of(study) == reference


def test_two_processes_share_the_trials(tmp_path):
    children = [start_child(tmp_path, 150) for _ in range(2)]
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
    assert finished_once(tmp_path) == dict.fromkeys(range(150), 1)
    with study_in(tmp_path, total=150, sampler="random") as study:
        assert len({json.dumps(params, sort_keys=True) for params in params_of(study)}) == 150
        assert len({trial.user_attrs["worker"] for trial in study.finished}) == 2
    assert not list((tmp_path / "locks").glob("worker-*"))


# ---- damage ----------------------------------------------------------------------------------------------


def test_an_unfinished_last_line_is_cut_off(tmp_path):
    first = whole(tmp_path, total=10)
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    assert whole(tmp_path, total=20)[:10] == first


def test_a_damaged_journal_is_refused_and_named(tmp_path):
    whole(tmp_path, total=10)
    path = tmp_path / "journal.log"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(itertools.chain(lines[:3], [b"{]\n"], lines[3:])))
    with pytest.raises(StoreError, match=r"journal\.log is damaged.*delete it"):
        study_in(tmp_path)


def test_changed_content_is_refused_and_never_taken_for_a_result(tmp_path):
    """Flip one byte at many places: the study is refused, or it has what was written."""
    whole(tmp_path / "good", total=6)
    content = (tmp_path / "good" / "journal.log").read_bytes()
    written = results_of(tmp_path / "good")
    rng = np.random.default_rng(0)
    messages = []
    for number, at in enumerate(rng.integers(len(content), size=150)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(7))
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "journal.log").write_bytes(damaged)
        try:
            found = results_of(folder)
        except StoreError as error:
            messages.append(str(error))
        else:
            assert all(one in written for one in found), content[max(0, at - 60) : at + 20]
    assert len(messages) > 30
    assert not [message for message in messages if "\n" in message]


def results_of(folder):
    with study_in(folder, total=6) as study:
        return [(trial.number, trial.params, outcome_of(trial)) for trial in study.finished]


def test_a_journal_of_another_program_is_refused(tmp_path):
    for content in (b"[1, 2]\n", b"null\n", b'{"op_code": 99}\n', b"\xff\xfe\n", b"[" * 10_000 + b"\n"):
        (tmp_path / "journal.log").write_bytes(content)
        with pytest.raises(StoreError, match=r"journal\.log is damaged"):
            study_in(tmp_path)


def test_a_journal_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "journal.log")
    with pytest.raises(StoreError, match="not a regular file"):
        study_in(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        study_in(tmp_path / "file" / "sweep")
