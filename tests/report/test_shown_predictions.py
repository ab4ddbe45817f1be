"""The most probable classes, in each of the three forms that predictions are printed in."""

import io

import pytest
from rich.console import Console

from featcache.errors import ModelError
from featcache.model import Prediction
from featcache.report.predictions import check_top, most_probable, prediction_json, sentences
from featcache.report.streams import write_csv
from featcache.report.tables import predictions_table

CLASSES = ("ant", "bee", "cat")
SEEN = Prediction("a.png", "cat", 0.7, {"ant": 0.1, "bee": 0.2, "cat": 0.7})
BROKEN = Prediction("b.png", None, reason="not an image")


def test_the_most_probable_come_first_and_there_are_no_more_than_classes():
    assert most_probable(SEEN, 2) == [("cat", 0.7), ("bee", 0.2)]
    assert [name for name, _ in most_probable(SEEN, 9)] == ["cat", "bee", "ant"]
    assert most_probable(BROKEN, 2) == []


def test_json_has_a_list_of_the_most_probable_instead_of_all():
    assert prediction_json(SEEN) == SEEN.to_json()
    facts = prediction_json(SEEN, 2)
    assert facts["top"] == [{"label": "cat", "probability": 0.7}, {"label": "bee", "probability": 0.2}]
    assert set(facts) == {"path", "label", "probability", "top"}
    assert prediction_json(BROKEN, 2)["top"] == []


class Open(io.StringIO):
    def close(self):
        """Keep what was written."""


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        (None, ["path,label,probability,ant,bee,cat", "a.png,cat,0.7,0.1,0.2,0.7", "b.png,,,,,"]),
        (
            2,
            [
                "path,label,probability,label_1,probability_1,label_2,probability_2",
                "a.png,cat,0.7,cat,0.7,bee,0.2",
                "b.png,,,,,,",
            ],
        ),
    ],
)
def test_csv_has_a_pair_of_columns_for_each_place(top, expected):
    out = Open()
    write_csv([SEEN, BROKEN], CLASSES, out, top)
    assert out.getvalue().splitlines() == expected


def test_a_table_shows_them_in_one_column():
    console = Console(file=io.StringIO(), width=80)
    console.print(predictions_table([SEEN, BROKEN], 2))
    lines = console.file.getvalue().splitlines()
    assert "the 2 most probable" in lines[0]
    assert "cat 0.700, bee 0.200" in lines[1]


def test_a_name_in_bytes_has_room_for_its_escapes():
    console = Console(file=io.StringIO(), width=80)
    console.print(predictions_table([Prediction("caf\udce9.png", "cat", 0.7)]))
    assert "caf\\xe9.png " in console.file.getvalue()


class Head:
    name, has_probabilities = "LinearSVC", False


def test_a_head_without_probabilities_is_refused():
    check_top(Head, None)
    with pytest.raises(ModelError, match="--top 3 needs probabilities, and head 'LinearSVC' gives none"):
        check_top(Head, 3)


MORE = ("novelty", "rejected", "set")
NONE = Prediction("c.png", None, None, {"ant": 0.5, "bee": 0.4, "cat": 0.1}, None, 0.01, True, ())
TWO = Prediction("d.png", "ant", 0.5, {"ant": 0.5, "bee": 0.4, "cat": 0.1}, None, 0.6, False, ("ant", "bee"))


def test_json_has_the_keys_that_were_asked_for_for_every_photo():
    rejected, two, broken = (prediction_json(one, None, MORE) for one in (NONE, TWO, BROKEN))
    assert (rejected["label"], rejected["rejected"], rejected["novelty"]) == (None, True, 0.01)
    assert (two["rejected"], two["set"]) == (False, ["ant", "bee"])
    assert [broken[name] for name in MORE] == [None, None, None]
    assert list(two) == ["path", "label", "probability", "probabilities", *MORE]
    assert set(prediction_json(SEEN)) == {"path", "label", "probability", "probabilities"}


def test_csv_has_the_same_in_its_last_columns():
    out = Open()
    write_csv([NONE, TWO, BROKEN], CLASSES, out, None, MORE)
    lines = out.getvalue().splitlines()
    assert lines[0] == "path,label,probability,ant,bee,cat,novelty,rejected,set"
    assert lines[1] == "c.png,,,0.5,0.4,0.1,0.01,true,[]"
    assert lines[2].endswith(',0.6,false,"[""ant"", ""bee""]"')
    assert lines[3] == "b.png,,,,,,,,"


def test_a_table_says_none_of_these():
    console = Console(file=io.StringIO(), width=80)
    console.print(predictions_table([NONE, TWO, BROKEN], None, MORE))
    header, none, two, broken = console.file.getvalue().splitlines()
    assert header.split() == ["photo", "class", "probability", "novelty", "set"]
    assert none.split() == ["c.png", "none", "of", "these", "0.010", "–"]
    assert two.split() == ["d.png", "ant", "0.500", "0.600", "ant,", "bee"]
    assert broken.split() == ["b.png", "not", "an", "image"]


def test_sentences_explain_rejected_photos_and_sets_in_words():
    rejected, sets = sentences([NONE, TWO, SEEN, BROKEN], 0.05, 0.1)
    assert rejected.startswith("1 of 3 photos are none of these (novelty below 0.05)")
    assert "about 5% are rejected" in rejected
    assert sets.startswith("Sets that hold the true class of 90% of photos: 1 with several classes")
    assert "1 with no class, since none is as probable" in sets
    assert sentences([SEEN], None, None) == []
