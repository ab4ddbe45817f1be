"""Rules choose by what they say and never by test scores; regret is measured against the best head."""

import json

import numpy as np
import pytest

from benchmarks import choosing
from benchmarks.choosing_fits import draw_rows
from benchmarks.choosing_rules import RULES, HeadScores, Scores, regret

N = 40


def scores(wrong, log_loss, n=N):
    correct = np.ones(n, bool)
    correct[:wrong] = False
    return Scores(float(correct.mean()), log_loss, correct)


def head(validation, folds, test, refitted):
    """Build a head from pairs of (wrong rows, log loss)."""
    return HeadScores(
        scores(*validation), tuple(scores(*one) for one in folds), scores(*test), scores(*refitted)
    )


@pytest.fixture
def draw():
    """Return heads of which every kind of score names another one."""
    return {
        "first": head((6, 0.9), [(6, 0.9), (6, 0.9)], (6, 0.50), (5, 0.40)),
        "accurate": head((1, 0.8), [(3, 0.6), (3, 0.6)], (4, 0.60), (4, 0.55)),
        "tied": head((3, 0.5), [(2, 0.7), (2, 0.7)], (3, 0.35), (3, 0.30)),
        "poor": head((16, 0.2), [(4, 0.4), (4, 0.6)], (9, 0.45), (8, 0.33)),
        "folds": head((5, 0.6), [(4, 0.5), (4, 0.2)], (3, 0.30), (2, 0.20)),
    }


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        ("a", "accurate"),
        ("b", "poor"),  # the lowest loss, though 15 rows worse
        ("c", "tied"),  # McNemar separates "poor" from "accurate"
        ("d", "poor"),
        ("e", "folds"),
        ("f", "tied"),
        ("g", "poor"),
        ("h", "accurate"),
        ("i", "poor"),
        ("j", "first"),
    ],
)
def test_each_rule_chooses_by_its_own_scores(draw, rule, chosen):
    assert RULES[rule].choose(draw) == chosen


def test_equal_accuracy_is_decided_by_log_loss(draw):
    draw["later"] = head((1, 0.7), [(2, 0.1)], (9, 9.0), (9, 9.0))
    assert RULES["a"].choose(draw) == "later"
    assert RULES["f"].choose(draw) == "later"


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_sees_test_scores(draw, rule):
    worst = scores(N, 99.0)
    changed = {
        name: HeadScores(one.validation, one.folds, worst if i % 2 else one.test, worst)
        for i, (name, one) in enumerate(draw.items())
    }
    assert RULES[rule].choose(changed) == RULES[rule].choose(draw)


def test_regret_of_heads_fitted_on_train(draw):
    found = regret(RULES["a"], draw)
    assert (found.log_loss, found.accuracy) == (0.60, 0.9)
    assert found.log_loss_same == pytest.approx(0.60 - 0.30)
    assert found.accuracy_same == pytest.approx(1 / N)
    assert found.log_loss_any == pytest.approx(0.60 - 0.20)
    assert found.accuracy_any == pytest.approx(2 / N)
    assert not found.is_best


def test_regret_of_heads_fitted_again(draw):
    found = regret(RULES["e"], draw)
    assert (found.log_loss, found.log_loss_same, found.accuracy_any) == (0.20, 0.0, 0.0)
    assert found.is_best


def test_scores_survive_the_journal(draw, tmp_path):
    journal = tmp_path / "choosing.jsonl"
    heads = {name: one.to_json() for name, one in draw.items()}
    journal.write_text(json.dumps({"set": "cats", "size": 100, "draw": 3, "heads": heads}) + "\n")
    (key, found), *_ = choosing.read(journal).items()
    assert key == ("cats", 100, 3)
    assert {rule: RULES[rule].choose(found) for rule in RULES} == {
        rule: RULES[rule].choose(draw) for rule in RULES
    }


def test_a_case_counts_once_however_many_draws_it_has(draw):
    better = {
        name: HeadScores(one.validation, one.folds, scores(0, 0.1), scores(0, 0.1))
        for name, one in draw.items()
    }
    draws = {("a", 100, 0): draw, ("b", 100, 0): better, ("b", 100, 1): better, ("b", 100, 2): better}
    found = choosing.summarize(draws)["all"]["a"]
    assert found["log_loss"] == pytest.approx((0.6 + 0.1) / 2)


def test_sets_are_small_by_their_validation_photos(draw):
    many = scores(3, 0.5, choosing.SMALL)
    large = {name: HeadScores(many, one.folds, one.test, one.refitted) for name, one in draw.items()}
    found = choosing.summarize({("a", 100, 0): draw, ("b", 0, 0): large})
    assert found.keys() == {"small", "large", "all"}
    assert found["large"]["b"]["log_loss"] == 0.5  # "first", since all validation losses are equal
    assert found["small"]["b"]["log_loss"] == 0.45


def test_a_rule_without_its_repetitions_has_no_row(draw):
    assert "e" not in choosing.summarize({("a", 100, 0): draw})["all"]
    assert "d" in choosing.summarize({("a", 100, 0): draw})["all"]


def test_rows_are_divided_without_overlap():
    y = np.repeat([0, 1, 2], [100, 60, 40])
    rows = draw_rows(y, 90, seed=3)
    every = np.concatenate([rows.train, rows.validation, rows.test])
    assert sorted(every) == list(range(200))
    assert len(rows.learned) == 90
    assert np.bincount(y[rows.train]).min() >= 5


def test_another_seed_draws_other_rows():
    y = np.repeat([0, 1], 100)
    assert set(draw_rows(y, 90, 0).test) != set(draw_rows(y, 90, 1).test)


def test_pools_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="10 photos are too few for 4 classes"):
        draw_rows(np.repeat([0, 1, 2, 3], 20), 10, 0)


def test_the_lines_of_the_documentation_have_equal_cells(draw):
    header, *lines = choosing.markdown(choosing.summarize({("a", 100, 0): draw}))
    assert {line.count("|") for line in lines} == {header.count("|")}
    assert any(line.startswith("| below 300 | d: 5-fold log loss") for line in lines)


def test_a_draw_is_computed_again_only_for_more_repetitions(draw, tmp_path, monkeypatch):
    journal, asked = tmp_path / "choosing.jsonl", []

    def record(found, key, repeats):
        asked.append((key, repeats))
        heads = {
            name: one.to_json() | {"folds": [one.folds[0].to_json()] * repeats} for name, one in draw.items()
        }
        return dict(zip(("set", "size", "draw"), key, strict=True)) | {"heads": heads}

    monkeypatch.setattr(choosing, "_record", record)
    monkeypatch.setattr(choosing, "_loaded", lambda name, folder: None)
    monkeypatch.setattr(choosing, "_fits", lambda found, size: True)
    for repeats in (1, 1, 3):
        choosing._run([("cats", 100, 0)], repeats, tmp_path, journal)
    assert asked == [(("cats", 100, 0), 1), (("cats", 100, 0), 3)]
    assert choosing._repeats(choosing.read(journal)["cats", 100, 0]) == 3
