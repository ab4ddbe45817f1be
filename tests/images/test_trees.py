"""Trees of folders: what is a class and what a split, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_sets import kinds, many, put, refusal, table_of


@pytest.mark.parametrize("name", ["validation", "val", "valid", "Val"])
def test_a_root_may_be_divided_already(tmp_path, name):
    put(tmp_path, "train/a/1", "train/b/2", f"{name}/a/3", f"{name}/b/4", "test/a/5", "test/b/6")
    table = table_of(root=tmp_path, validation_from_train=0.9, test_from_validation=0.9)
    assert [row.split for row in table.rows] == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2


def test_folders_of_their_own(tmp_path):
    put(tmp_path, "x/a/1", "x/b/2", "y/a/3", "y/b/4", "z/a/5", "z/b/6")
    table = table_of(train=tmp_path / "x", validation=tmp_path / "y", test=tmp_path / "z")
    assert [Path(row.path).name for row in table.rows] == list("123456")
    assert [row.split for row in table.rows] == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2


def test_railway_trains_may_be_a_class(tmp_path):
    assert table_of(root=many(tmp_path, {"train": 40, "car": 40, "boat": 40})).classes == (
        "boat",
        "car",
        "train",
    )


def test_folders_beside_a_division_are_pointed_out(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4", "tset/a/5")
    (warning,) = table_of(root=tmp_path).warnings
    assert "tset" in warning
    assert "Did you mean 'test'?" in warning


def test_photos_are_searched_below_the_class_folder(tmp_path):
    put(
        tmp_path,
        "train/a/1.jpg",
        "train/a/deep/er/2.PNG",
        "train/a/no-suffix",
        "train/b/4",
        "val/a/5",
        "val/b/6",
    )
    assert [Path(row.path).name for row in table_of(root=tmp_path).rows[:3]] == [
        "1.jpg",
        "2.PNG",
        "no-suffix",
    ]


def test_photos_beside_class_folders_are_pointed_out(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4", "train/stray.JPG", "train/README.md")
    (warning,) = table_of(root=tmp_path).warnings
    assert "stray.JPG" in warning
    assert "README" not in warning


def test_a_missing_folder(tmp_path):
    message = refusal(root=tmp_path / "nowhere")
    assert "nowhere does not exist" in message
    assert str(Path.cwd()) in message


def test_a_missing_validation_folder_is_named_by_its_key(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2")
    assert "data.validation = " in refusal(train=tmp_path / "train", validation=tmp_path / "vla")


def test_a_file_where_a_folder_is_needed(tmp_path):
    put(tmp_path, "photo.jpg")
    assert "is a file" in refusal(root=tmp_path / "photo.jpg")


def test_an_empty_folder(tmp_path):
    message = refusal(root=tmp_path)
    assert "is empty" in message
    assert "one sub-folder per class" in message


def test_photos_without_class_folders(tmp_path):
    message = refusal(root=put(tmp_path, "1.jpg", "2.jpg"))
    assert "holds no class folder, only files (2)" in message
    assert "one sub-folder per class" in message


@pytest.mark.parametrize("leftover", [None, ".DS_Store"])
def test_an_empty_class_folder(tmp_path, leftover):
    put(tmp_path, "cat/1.jpg")
    (tmp_path / "dog").mkdir()
    if leftover:
        put(tmp_path / "dog", leftover)
    assert f"{tmp_path / 'dog'} holds no file" in refusal(root=tmp_path)


def test_a_root_without_train(tmp_path):
    assert "no folder train" in refusal(root=put(tmp_path, "val/a/1", "val/b/2", "test/a/3", "test/b/4"))


def test_two_folders_for_one_split(tmp_path):
    message = refusal(root=put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "valid/a/4"))
    assert "both val and valid" in message


# ---- names of splits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("pets_train", "pets_test"),
        ("train2017", "test2017"),
        ("TrainSet", "TestSet"),
        ("TRAIN", "TEST"),
        ("train images", "test images"),
        ("Train-Data", "holdout"),
    ],
)
@pytest.mark.parametrize("level", ["", "same/"])
def test_folders_named_as_splits_are_splits(tmp_path, train, test, level):
    put(tmp_path, *(f"{train}/{level or ''}{c}/{n}" for c in ("cat", "dog") for n in range(30)))
    put(tmp_path, *(f"{test}/{level or ''}{c}/{n}" for c in ("cat", "dog") for n in range(4)))
    table = table_of(root=tmp_path)
    assert table.classes == ("cat", "dog")
    assert {row.split for row in table.rows if f"/{test}/" in row.path} == {"test"}
    assert {row.split for row in table.rows if f"/{train}/" in row.path} == {"train", "validation"}
    said = [finding for finding in table.findings if finding.kind == "split_folders"]
    if train.lower() in ("train", "training") and test.lower() == "test":
        assert said == []
    else:
        assert f"{train} as train, {test} as test" in said[0].text


@pytest.mark.parametrize("name", ["val2017", "dev", "eval", "pets_val", "validation_set", "Valid"])
def test_names_of_validation(tmp_path, name):
    train = "pets_train" if name == "pets_val" else "train"
    put(tmp_path, f"{train}/a/1", f"{train}/b/2", f"{name}/a/3", f"{name}/b/4")
    assert [row.split for row in table_of(root=tmp_path).rows] == ["train"] * 2 + ["validation"] * 2


def test_folders_beside_splits_of_other_names_are_pointed_out(tmp_path):
    put(tmp_path, "seg_train/seg_train/a/1", "seg_train/seg_train/b/2", "seg_pred/seg_pred/5.jpg")
    put(tmp_path, "seg_test/seg_test/a/3", "seg_test/seg_test/b/4")
    table = table_of(root=tmp_path, validation_from_train=0.001, folds=2)
    assert table.classes == ("a", "b")
    unused = [finding.photos for finding in table.findings if finding.kind == "unused_folder"]
    assert unused == [(str(tmp_path / "seg_pred"),)]


@pytest.mark.parametrize(
    "classes", [("test tube", "training shoes"), ("valid", "invalid"), ("train", "bus", "test tube")]
)
def test_classes_with_words_of_splits_stay_classes(tmp_path, classes):
    table = table_of(root=many(tmp_path, dict.fromkeys(classes, 30)))
    assert table.classes == tuple(sorted(classes))
    assert table.warnings == ()


def test_a_nested_class_of_railway_trains_beside_alike_ones_is_not_a_split(tmp_path):
    put(tmp_path, "train/day/1", "train/night/2", "bus/day/3", "bus/night/4")
    assert "unclear which are the classes" in refusal(root=tmp_path)


def test_an_unlabelled_test_folder_is_not_used(tmp_path):
    many(tmp_path / "train", {"a": 30, "b": 30})
    table = table_of(root=put(tmp_path, "test1/1.jpg", "test1/2.jpg"))
    assert {row.split for row in table.rows} == {"train", "validation"}
    (finding,) = table.findings
    assert (finding.kind, finding.photos) == ("unused_folder", (str(tmp_path / "test1"),))
    assert "no labels" in finding.text


@pytest.mark.parametrize(
    ("paths", "complaints"),
    [
        (["cats_train/1", "cats_test/2", "dogs_train/3", "dogs_test/4"], ["cats_train", "names of splits"]),
        (["seg_train/a/1", "seg_train/b/2", "seg_test/c/3", "seg_test/d/4"], ["seg_train", "data.train"]),
        (["part1/a/1", "part1/b/2", "part2/a/3", "part2/b/4"], ["'part1', 'part2'", "'a', 'b'", "manifest"]),
        (["part1/a/1", "part1/b/2", "part2/a/3"], ["unclear which"]),
        (["part1/a/1", "part1/b/2", "part1/stray.jpg", "part2/a/3", "part2/b/4"], ["unclear which"]),
        (["a/raw/1", "a/edited/2", "b/raw/3", "b/edited/4"], ["unclear which", "move the photos up"]),
        (["a/train/1", "a/test/2", "b/train/3", "b/test/4"], ["split folders 'test', 'train'"]),
        (["data/train/a/1", "data/test/a/2", "other/3"], ["split folders 'test', 'train'", "data.train"]),
        (["trainval/a/1", "trainval/b/2", "test/a/3", "test/b/4"], ["unclear which"]),
        (["train/1.jpg", "test/2.jpg"], ["holds no class folder", "manifest"]),
        (["val/1.jpg", "test/2.jpg"], ["no folder train"]),
        (["train/a/1", "train/b/2", "training_set/a/3"], ["both train and training_set"]),
    ],
)
def test_folders_that_may_be_splits_are_no_classes(tmp_path, paths, complaints):
    message = refusal(root=put(tmp_path, *paths))
    for complaint in complaints:
        assert complaint in message


def test_a_split_of_its_own_key_must_not_hold_splits(tmp_path):
    put(tmp_path, "set/train/a/1", "set/train/b/2", "set/test/a/3", "set/test/b/4")
    message = refusal(train=tmp_path / "set")
    assert "data.train = " in message
    assert "names of splits" in message


def test_nested_folders_that_differ_belong_to_their_class(tmp_path):
    put(tmp_path, "a/persian/1", "a/siamese/2", "b/poodle/3", "b/hound/4")
    table = table_of(root=tmp_path, split={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert table.classes == ("a", "b")
    assert kinds(table) == ["nested_classes"]
    assert "a/persian" in table.findings[0].text


def test_one_folder_of_the_same_name_in_every_class_is_no_doubt(tmp_path):
    put(tmp_path, "a/images/1", "b/images/2", "c/images/3")
    table = table_of(root=tmp_path, split={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert table.classes == ("a", "b", "c")


def test_the_same_folders_beside_photos_of_the_class_are_pointed_out(tmp_path):
    put(tmp_path, "a/1.jpg", "a/raw/2", "a/edited/3", "b/4.jpg", "b/raw/5", "b/edited/6")
    table = table_of(root=tmp_path, split={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert table.classes == ("a", "b")
    assert kinds(table) == ["nested_classes"]
    assert "the same folders" in table.warnings[0]


# ---- levels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["archive", "archive/archive", "data/photos.v1"])
def test_levels_above_the_classes_are_passed_and_said(tmp_path, above):
    put(tmp_path, f"{above}/cat/1", f"{above}/dog/2", "README.md", "labels.csv")
    table = table_of(root=tmp_path, split={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert table.classes == ("cat", "dog")
    assert kinds(table) == ["inner_folder"]
    assert str(tmp_path / above) in table.findings[0].text


def test_levels_above_and_below_the_splits_are_passed(tmp_path):
    put(tmp_path, "x/y/train/train/a/1", "x/y/train/train/b/2", "x/y/val/val/a/3", "x/y/val/val/b/4")
    table = table_of(root=tmp_path)
    assert [row.split for row in table.rows] == ["train"] * 2 + ["validation"] * 2
    assert kinds(table) == ["inner_folder"] * 3


def test_levels_are_passed_in_folders_of_their_own(tmp_path):
    put(tmp_path, "t/t/a/1", "t/t/b/2", "v/v/a/3", "v/v/b/4")
    table = table_of(train=tmp_path / "t", validation=tmp_path / "v")
    assert [row.split for row in table.rows] == ["train"] * 2 + ["validation"] * 2


def test_a_split_with_one_nested_class_is_not_passed_through(tmp_path):
    put(tmp_path, "train/a/x/1", "train/b/y/2", "val/A/x/3", "val/A/z/4")
    table = table_of(root=tmp_path)
    assert [row.label for row in table.rows if row.split == "validation"] == ["a", "a"]


def test_a_folder_that_leads_to_itself_ends(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path)
    assert "loop" in refusal(root=tmp_path)


# ---- empty class folders -------------------------------------------------------------------------------


def test_an_empty_class_folder_in_validation_is_pointed_out(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "train/c/3", "val/a/4", "val/b/5")
    (tmp_path / "val/c").mkdir()
    (tmp_path / "val/not in train").mkdir()
    table = table_of(root=tmp_path)
    assert len(table.rows) == 5
    finding = table.findings[0]
    assert (finding.kind, len(finding.photos)) == ("empty_class", 2)
    assert "2 in all" in finding.text


def test_an_empty_class_folder_in_train_is_refused(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4", "val/c/5")
    (tmp_path / "train/c").mkdir()
    assert "holds no file" in refusal(root=tmp_path)


def test_a_validation_of_empty_class_folders_is_not_replaced_by_a_draw(tmp_path):
    many(tmp_path / "train", {"a": 30, "b": 30})
    for label in "ab":
        (tmp_path / "val" / label).mkdir(parents=True)
    assert "none of its 2 class folders holds a file" in refusal(root=tmp_path)


# ---- class folders among class folders -----------------------------------------------------------------


def test_a_second_copy_of_all_class_folders_is_not_used(tmp_path):
    put(tmp_path, "cells/a/1", "cells/b/2", "cells/cells/a/1", "cells/cells/b/2")
    table = table_of(root=tmp_path / "cells", split={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert table.classes == ("a", "b")
    assert len(table.rows) == 2
    assert [finding.photos for finding in table.findings] == [(str(tmp_path / "cells/cells"),)]


def test_class_folders_in_a_folder_among_them_are_refused(tmp_path):
    message = refusal(root=put(tmp_path, "a/1", "b/2", "more/a/3", "more/b/4"))
    assert str(tmp_path / "more") in message
    assert "'a', 'b'" in message
