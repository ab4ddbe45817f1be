"""Names of splits: which words they have, and which names differ in them only."""

import pytest

from featcache.images.split_names import SplitName, named_as_splits, plain_split, read_split_name


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("seg_train", SplitName("train", ("seg",))),
        ("Pets-Val 2", SplitName("validation", ("pets",))),
        ("MyTestSet", SplitName("test", ("my",))),
        ("train_val", None),
        ("trainer", None),
        ("contest", None),
        ("2017", None),
        ("äöü_test", SplitName("test", ("äöü",))),
    ],
)
def test_a_split_is_a_whole_word_of_a_name(name, read):
    assert read_split_name(name) == read


def test_plain_names_are_splits_and_nothing_else():
    assert [plain_split(name) for name in ("Training set 2", "val", "seg_val")] == [
        "train",
        "validation",
        None,
    ]


def test_names_that_differ_in_the_split_only():
    assert named_as_splits(["a_train", "b", "a_test"]) == ["a_train", "a_test"]
    assert named_as_splits(["a_train", "b_test", "a_training"]) == []
