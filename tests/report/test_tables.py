"""Tables fit a terminal and say what the scores say."""

import io

import numpy as np
import pytest
from rich.console import Console

from featcache.evaluation import full_scores
from featcache.report.tables import classes_table, confusion_table


def rendered(table, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return console.file.getvalue().rstrip().splitlines()


def scores_of(classes, n=400, right=0.7, seed=0):
    """Scores in which the first class is the hardest and the last the easiest."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    sure = rng.random(n) < right + (1 - right) * y / classes
    predicted = np.where(sure, y, rng.integers(classes, size=n))
    return full_scores(y, None, predicted, np.arange(classes), resamples=1)


def test_a_confusion_table_has_true_classes_in_rows():
    y, predicted = ["cat"] * 3 + ["dog"] * 4, ["cat", "dog", "dog"] + ["dog"] * 4
    lines = rendered(
        confusion_table(full_scores(y, None, predicted, ["cat", "dog"], resamples=1), ["cat", "dog"])
    )
    assert [line.split() for line in lines[1:]] == [
        ["true", "↓", "predicted", "→", "1", "2"],
        ["1", "cat", "1", "2"],
        ["2", "dog", "·", "4"],
    ]


@pytest.mark.parametrize("classes", [2, 10, 37])
def test_both_tables_fit_80_columns_and_show_every_number(classes):
    scores = scores_of(classes)
    scores["confusion"] = [[12345] * classes for _ in range(classes)]
    names = [f"a rather long name of a class, number {i}" for i in range(classes)]
    for table in (confusion_table(scores, names), classes_table(scores, names)):
        lines = rendered(table)
        assert max(map(len, lines)) <= 80
        assert len(lines) == 2 + min(classes, 10)
    assert all(
        line.count("12345") == min(classes, 10) for line in rendered(confusion_table(scores, names))[2:]
    )


def test_of_many_classes_the_worst_ten_are_shown_and_no_photo_is_lost():
    scores = scores_of(37, n=4000)
    names = [f"kind{i}" for i in range(37)]
    worst = sorted(range(37), key=lambda i: scores["per_class"][i]["f1"])[:10]
    lines = rendered(classes_table(scores, names))
    assert "worst 10 of 37" in lines[0]
    assert [line.split()[1] for line in lines[2:]] == [names[i] for i in worst]
    confusion = rendered(confusion_table(scores, names))
    assert "worst 10 of 37" in confusion[0]
    assert confusion[1].split() == ["true", "↓", "predicted", "→", *(str(i + 1) for i in worst), "others"]
    for line, i in zip(confusion[2:], worst, strict=True):
        assert sum(int(cell) for cell in line.split()[2:] if cell != "·") == scores["per_class"][i]["n"]


def test_a_classes_table_has_the_scores_of_each_class():
    found = full_scores(["a", "a", "b"], None, ["a", "b", "b"], ["a", "b", "c"], resamples=1)
    assert [line.split() for line in rendered(classes_table(found))[1:]] == [
        ["class", "n", "precision", "recall", "95%", "interval", "F1"],
        ["1", "a", "2", "100.0%", "50.0%", "9.5%", "–", "90.5%", "0.667"],
        ["2", "b", "1", "50.0%", "100.0%", "20.7%", "–", "100.0%", "0.667"],
        ["3", "c", "0", "–", "–", "–", "–"],
    ]


def test_names_are_no_markup():
    found = full_scores([0, 1], None, [0, 1], [0, 1], resamples=1)
    names = ["[red]fox[/red]", "[/]"]
    for table in (confusion_table(found, names), classes_table(found, names)):
        text = "\n".join(rendered(table))
        assert all(name in text for name in names)
