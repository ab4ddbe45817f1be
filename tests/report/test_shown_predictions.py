"""The most probable classes, in each of the three forms that predictions are printed in."""

import io

import pytest
from rich.console import Console

from featcache.errors import ModelError
from featcache.model import Prediction
from featcache.report.predictions import check_top, most_probable, prediction_json
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
