"""The folders: what counts as a photo, a class or a split, and what is refused in which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_sets import many, put, refusal, table_of

from featcache.errors import DataError
from featcache.images.folders import photo_files


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


def test_leftovers_of_systems_are_ignored(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4")
    put(tmp_path, "train/a/.DS_Store", "train/a/Thumbs.db", "train/a/desktop.ini", "train/a/.hidden/5")
    put(
        tmp_path,
        "train/__MACOSX/a/6",
        "train/.ipynb_checkpoints/7",
        "train/a/__MACOSX/8",
        "__MACOSX/9",
        ".x/1",
    )
    table = table_of(root=tmp_path)
    assert len(table.rows) == 4
    assert table.classes == ("a", "b")
    assert table.warnings == ()


def test_links_are_followed_and_loops_end(tmp_path):
    put(tmp_path / "elsewhere", "1", "2")
    put(tmp_path, "train/a/0", "train/b/3", "val/a/4", "val/b/5")
    (tmp_path / "train/a/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train/a/file").symlink_to(tmp_path / "elsewhere/1")
    (tmp_path / "train/a/loop").symlink_to(tmp_path / "train/a")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "elsewhere")
    names = [Path(row.path).name for row in table_of(root=tmp_path).rows if row.label == "a"]
    assert sorted(names) == ["0", "1", "2", "4", "file"]


def test_a_class_folder_may_be_a_link(tmp_path):
    put(tmp_path / "elsewhere", "1", "2")
    put(tmp_path, "train/b/3", "val/a/4", "val/b/5")
    (tmp_path / "train/a").symlink_to(tmp_path / "elsewhere")
    assert table_of(root=tmp_path).classes == ("a", "b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_reported_and_not_waited_for(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4")
    os.mkfifo(tmp_path / "train/a/pipe")
    (tmp_path / "train/a/link").symlink_to("pipe")
    (tmp_path / "train/b/zero.png").symlink_to("/dev/zero")
    table = table_of(root=tmp_path)
    assert len(table.rows) == 4
    assert [(Path(path).name, reason) for path, reason in table.unreadable] == [
        ("link", "it is not a regular file"),
        ("pipe", "it is not a regular file"),
        ("zero.png", "it is not a regular file"),
    ]


def test_photo_files_are_all_candidates_below_a_folder(tmp_path):
    put(tmp_path, "b.jpg", "a/2.png", "a/deep/3", ".hidden", "Thumbs.db", "__MACOSX/a/4")
    assert photo_files(tmp_path) == [str(tmp_path / name) for name in ("a/2.png", "a/deep/3", "b.jpg")]
    with pytest.raises(DataError, match="cannot be read"):
        photo_files(tmp_path / "nowhere")


def test_photos_beside_class_folders_are_pointed_out(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4", "train/stray.JPG", "train/README.md")
    (warning,) = table_of(root=tmp_path).warnings
    assert "stray.JPG" in warning
    assert "README" not in warning


# ---- what is refused -----------------------------------------------------------------------------------


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
